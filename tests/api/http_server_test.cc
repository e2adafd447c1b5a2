#include "api/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "api_fixture.h"

/// The server over real sockets. A52, and the limits of 2.1.
namespace api_tests {
namespace {

using namespace std::chrono_literals;
using ::testing::NiceMock;

/// A blocking client connection, as dumb as they come.
class Connection {
 public:
  explicit Connection(const std::string& address) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    connect(reinterpret_cast<sockaddr*>(&at), sizeof at);
  }
  struct Unix {};
  Connection(Unix, const std::string& path) {
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    path.copy(at.sun_path, sizeof at.sun_path - 1);
    fd_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    connect(reinterpret_cast<sockaddr*>(&at), sizeof at);
  }
  Connection(const Connection&) = delete;
  ~Connection() { ::close(fd_); }

  void send(const std::string& text) {
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t count = ::send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;  // the server may have closed already
      sent += static_cast<size_t>(count);
    }
  }
  /// The head of one answer and its body by Content-Length; "" at the end of the connection.
  std::string receive() {
    size_t end, length = 0;
    while ((end = got_.find("\r\n\r\n")) == got_.npos) {
      if (!more()) return std::exchange(got_, "");
    }
    const size_t at = got_.find("Content-Length: ");
    if (at < end) length = std::stoul(got_.substr(at + 16));
    while (got_.size() < end + 4 + length) {
      if (!more()) break;
    }
    const std::string answer = got_.substr(0, end + 4 + length);
    got_.erase(0, answer.size());
    return answer;
  }
  bool is_closed_within(std::chrono::milliseconds patience) {
    const timeval wait{patience.count() / 1000, (patience.count() % 1000) * 1000};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    char byte;
    return ::recv(fd_, &byte, 1, 0) == 0;
  }

 private:
  void connect(const sockaddr* at, socklen_t size) {
    connected_ = ::connect(fd_, at, size) == 0;
    const timeval wait{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  }
  bool more() {
    char piece[4096];
    const ssize_t count = ::recv(fd_, piece, sizeof piece, 0);
    if (count > 0) got_.append(piece, static_cast<size_t>(count));
    return count > 0;
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string got_;
};

std::string get_text(const std::string& target) {
  return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n";
}
std::string post_text(const std::string& target, const std::string& body) {
  return "POST " + target +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}
int status_of(const std::string& answer) {
  return answer.size() < 12 ? 0 : std::stoi(answer.substr(9, 3));
}
Json json_of(const std::string& answer) {
  return Json::parse(answer.substr(std::min(answer.find("\r\n\r\n"), answer.size() - 4) + 4),
                     nullptr, false);
}

class HttpServer : public ::testing::Test {
 protected:
  HttpServer() {
    ON_CALL(engine_, health).WillByDefault(Return(engine::HealthView{true, true, false}));
    ON_CALL(engine_, backup).WillByDefault(Return(running_backup()));
  }
  void serve(api::HttpServerOptions options = {}) {
    if (options.addresses.empty()) options.addresses = {"127.0.0.1:0"};
    server_.emplace(api_, options);
    if (!server_->addresses().empty()) address_ = server_->addresses()[0];
  }
  std::string ask(const std::string& text) {
    Connection connection(address_);
    connection.send(text);
    return connection.receive();
  }

  NiceMock<MockEngine> engine_;
  api::Api api_{engine_, {.version = "1.2.3", .pid = 4242, .now = [] { return sample_time(); }}};
  std::optional<api::HttpServer> server_;
  std::string address_;
};

// A52
TEST_F(HttpServer, Port0IsAnyFreePortAndItsRealNumberIsTold) {
  serve();
  EXPECT_TRUE(address_.starts_with("127.0.0.1:"));
  EXPECT_NE(address_, "127.0.0.1:0");
  const std::string answer = ask(get_text("/health"));
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(json_of(answer)["service"], "varve");
  EXPECT_NE(answer.find("Content-Type: application/json\r\n"), std::string::npos);
}

TEST_F(HttpServer, SeveralAddressesAreServed) {
  serve({.addresses = {"127.0.0.1:0", "127.0.0.1:0"}});
  ASSERT_EQ(server_->addresses().size(), 2u);
  for (const std::string& address : server_->addresses()) {
    address_ = address;
    EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
  }
}

TEST_F(HttpServer, AnAddressInUseIsNamedInTheError) {
  serve();
  try {
    const api::HttpServer second(api_, {.addresses = {address_}});
    FAIL() << "two servers on " << address_;
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::address_in_use);
    EXPECT_EQ(std::string(error.what()), "listen on " + address_ + ": Address already in use");
  }
}

TEST_F(HttpServer, AnAddressThatIsNoneIsRefused) {
  for (const char* address :
       {"8082", "127.0.0.1", "127.0.0.1:", ":8082", "127.0.0.1:http:x", "x y:1"}) {
    EXPECT_THROW(api::HttpServer(api_, {.addresses = {address}}), std::invalid_argument) << address;
  }
}

TEST_F(HttpServer, AConnectionIsKeptForSeveralRequests) {
  serve();
  Connection connection(address_);
  for (int i = 0; i < 3; ++i) {
    connection.send(get_text("/api/v1/backups/a"));
    EXPECT_EQ(json_of(connection.receive())["backup_id"], "backup-pgtest1-1759913694");
  }
  connection.send(get_text("/livez") + get_text("/readyz"));  // pipelined
  EXPECT_EQ(json_of(connection.receive())["status"], "alive");
  EXPECT_EQ(json_of(connection.receive())["status"], "ready");
}

TEST_F(HttpServer, ConnectionCloseAndHttp10EndTheConnection) {
  serve();
  for (const char* text : {"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                           "GET /livez HTTP/1.0\r\n\r\n"}) {
    Connection connection(address_);
    connection.send(text);
    EXPECT_EQ(status_of(connection.receive()), 200);
    EXPECT_TRUE(connection.is_closed_within(5s));
  }
}

// A33
TEST_F(HttpServer, ABodyOfOneMebibyteIsTakenAndAByteMoreIsRefused) {
  serve();
  std::string seen;
  EXPECT_CALL(engine_, cancel).WillOnce([&](const std::string&, const std::string& reason) {
    seen = reason;
  });
  const std::string frame = R"({"reason":""})";
  const std::string text((1 << 20) - frame.size(), 'x');
  EXPECT_EQ(status_of(ask(post_text("/api/v1/backups/a/cancel", R"({"reason":")" + text + "\"}"))),
            200);
  EXPECT_EQ(seen, text);
  const std::string answer =
      ask(post_text("/api/v1/backups/a/cancel", R"({"reason":"x)" + text + "\"}"));
  EXPECT_EQ(status_of(answer), 413);
  const Json problem = json_of(answer);
  EXPECT_EQ(problem["error"], "request body too large");
  EXPECT_EQ(problem["instance"], "/api/v1/backups/a/cancel");
  EXPECT_NE(answer.find("application/problem+json"), std::string::npos);
}

TEST_F(HttpServer, AChunkedBodyIsLimitedToo) {
  serve({.body_bytes_max = 100});
  std::string text =
      "POST /api/v1/backups HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 5; ++i) text += "20\r\n" + std::string(32, 'x') + "\r\n";
  EXPECT_EQ(status_of(ask(text + "0\r\n\r\n")), 413);
}

TEST_F(HttpServer, ExpectContinueIsAnsweredBeforeTheBody) {
  serve();
  EXPECT_CALL(engine_, cancel("a", "x"));
  Connection connection(address_);
  const std::string body = R"({"reason":"x"})";
  connection.send(
      "POST /api/v1/backups/a/cancel HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(connection.receive(), "HTTP/1.1 100 Continue\r\n\r\n");
  connection.send(body);
  EXPECT_EQ(status_of(connection.receive()), 200);
}

// A33
TEST_F(HttpServer, WhatIsNoHttpGetsAProblemAndTheEndOfTheConnection) {
  serve();
  for (const std::string text : {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                                 "POST /api/v1/backups HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                                 "GET /\x01 HTTP/1.1\r\n\r\n"}) {
    Connection connection(address_);
    connection.send(text);
    const std::string answer = connection.receive();
    EXPECT_EQ(status_of(answer), 400) << text;
    EXPECT_EQ(json_of(answer)["error"], "malformed request") << text;
    EXPECT_TRUE(connection.is_closed_within(5s)) << text;
  }
  const std::string large = "GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n";
  EXPECT_EQ(status_of(ask(large)), 431);
}

TEST_F(HttpServer, AnAnswerToHeadHasNoBody) {
  serve();
  Connection connection(address_);
  connection.send("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n" + get_text("/livez"));
  const std::string answer = connection.receive();
  EXPECT_EQ(status_of(answer), 405);
  EXPECT_NE(answer.find("Allow: GET\r\n"), std::string::npos);
  EXPECT_EQ(json_of(connection.receive())["status"], "alive");
}

// 2.1: closed when the request does not come in time, however it dawdles.
TEST_F(HttpServer, ASlowRequestIsClosed) {
  serve({.request_timeout = 200ms});
  Connection silent(address_), dawdling(address_);
  dawdling.send("GET /livez HTTP/1.1\r\nHos");
  EXPECT_TRUE(silent.is_closed_within(5s));
  EXPECT_TRUE(dawdling.is_closed_within(5s));
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpServer, AnIdleConnectionIsKeptLongerThanARequestMayTake) {
  serve({.request_timeout = 200ms, .idle_timeout = 1200ms});
  Connection connection(address_);
  connection.send(get_text("/livez"));
  connection.receive();
  std::this_thread::sleep_for(500ms);
  connection.send(get_text("/livez"));
  EXPECT_EQ(status_of(connection.receive()), 200);
  EXPECT_TRUE(connection.is_closed_within(5s));
}

/// An engine call that blocks until the test lets it go.
class Gate {
 public:
  void pass() {
    ++waiting_;
    future_.wait();
  }
  void open() { promise_.set_value(); }
  void wait_for(int count) const {
    while (waiting_ < count) std::this_thread::sleep_for(1ms);
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
  std::atomic<int> waiting_ = 0;
};

TEST_F(HttpServer, HealthAnswersWhileEveryHandlerIsBusy) {
  Gate gate;
  ON_CALL(engine_, backup).WillByDefault([&](const std::string&) {
    gate.pass();
    return running_backup();
  });
  serve({.handler_threads_max = 2});
  Connection busy[] = {Connection(address_), Connection(address_), Connection(address_)};
  for (Connection& connection : busy) connection.send(get_text("/api/v1/backups/a"));
  gate.wait_for(2);
  for (const char* target : {"/livez", "/health", "/readyz", "/nowhere", "/openapi.json"}) {
    EXPECT_NE(status_of(ask(get_text(target))), 0) << target;
  }
  gate.open();
  for (Connection& connection : busy) EXPECT_EQ(status_of(connection.receive()), 200);
}

// 2.1: every answer within 15 s, except that of complete.
TEST_F(HttpServer, AHandlerThatIsLateIsAnsweredForAndCompleteIsWaitedFor) {
  Gate gate;
  ON_CALL(engine_, backup).WillByDefault([&](const std::string&) {
    gate.pass();
    return running_backup();
  });
  ON_CALL(engine_, complete).WillByDefault([&](const engine::CompleteDisk&) {
    gate.pass();
    return engine::CompletedDisk{0, engine::JobState::completed, 1, 1};
  });
  serve({.answer_timeout = 200ms});
  Connection completing(address_);
  completing.send(post_text("/api/v1/backups/a/complete", R"({"change_id":"a/1"})"));
  const std::string late = ask(get_text("/api/v1/backups/a"));
  EXPECT_EQ(status_of(late), 503);
  EXPECT_EQ(json_of(late)["error"], "answer is late");
  gate.wait_for(2);
  std::this_thread::sleep_for(300ms);
  gate.open();
  EXPECT_EQ(status_of(completing.receive()), 200);
}

TEST_F(HttpServer, ARequestThatWaitedTooLongIsNeverStarted) {
  Gate gate;
  ON_CALL(engine_, backup).WillByDefault([&](const std::string&) {
    gate.pass();
    return running_backup();
  });
  EXPECT_CALL(engine_, delete_backup).Times(0);
  serve({.handler_threads_max = 1, .answer_timeout = 200ms});
  Connection busy(address_);
  busy.send(get_text("/api/v1/backups/a"));
  gate.wait_for(1);
  EXPECT_EQ(status_of(ask("DELETE /api/v1/backups/a HTTP/1.1\r\nHost: x\r\n\r\n")), 503);
  gate.open();
  server_->stop();
}

TEST_F(HttpServer, StopAnswersWhatIsUnderWayAndClosesWhatIsIdle) {
  Gate gate;
  ON_CALL(engine_, backup).WillByDefault([&](const std::string&) {
    gate.pass();
    return running_backup();
  });
  serve();
  Connection idle(address_), busy(address_);
  idle.send(get_text("/livez"));
  idle.receive();
  busy.send(get_text("/api/v1/backups/a"));
  gate.wait_for(1);
  std::thread stopper([&] { server_->stop(); });
  EXPECT_TRUE(idle.is_closed_within(5s));
  gate.open();
  const std::string answer = busy.receive();
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  stopper.join();
  EXPECT_EQ(ask(get_text("/livez")), "");
  server_->stop();  // again, without harm
}

TEST_F(HttpServer, StopWaitsNoLongerThanItsGraceForASlowPeer) {
  serve({.stop_grace = 200ms});
  Connection half(address_);
  half.send("POST /api/v1/backups HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12");
  std::this_thread::sleep_for(50ms);
  const auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_TRUE(half.is_closed_within(1s));
}

TEST_F(HttpServer, BeyondItsConnectionsItClosesAtOnce) {
  serve({.connections_max = 2});
  Connection first(address_), second(address_);
  first.send(get_text("/livez")), first.receive();
  second.send(get_text("/livez")), second.receive();
  Connection third(address_);
  EXPECT_TRUE(third.is_closed_within(5s));
  first.send(get_text("/livez"));
  EXPECT_EQ(status_of(first.receive()), 200);
}

class UnixSocket : public HttpServer {
 protected:
  UnixSocket() {
    char pattern[] = "/tmp/varve-api-XXXXXX";
    directory_ = ::mkdtemp(pattern);
    path_ = directory_ + "/http.sock";
  }
  ~UnixSocket() override { std::filesystem::remove_all(directory_); }
  std::string directory_, path_;
};

TEST_F(UnixSocket, IsServedLikeLoopbackAndRemovedAtTheEnd) {
  const api::Api secured(engine_, {.token = "t", .now = [] { return sample_time(); }});
  {
    const api::HttpServer server(secured, {.unix_socket = path_});
    struct stat status {};
    ASSERT_EQ(::stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0660u);
    Connection connection(Connection::Unix{}, path_);
    connection.send(get_text("/health"));
    EXPECT_EQ(status_of(connection.receive()), 200);
    connection.send(get_text("/api/v1/backups"));
    EXPECT_EQ(status_of(connection.receive()), 401);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocket, AStaleOneIsReplacedALiveOneAndAFileAreNot) {
  const int stale = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  path_.copy(at.sun_path, sizeof at.sun_path - 1);
  ASSERT_EQ(::bind(stale, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  ::close(stale);
  serve({.addresses = {}, .unix_socket = path_});
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = path_}), std::system_error);
  server_.reset();
  const std::string file = directory_ + "/file";
  std::ofstream(file) << "kept";
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = file}), std::system_error);
  EXPECT_TRUE(std::filesystem::exists(file));
}

TEST_F(UnixSocket, APathThatIsTooLongIsRefused) {
  const std::string path = directory_ + "/" + std::string(120, 'x');
  EXPECT_THROW(api::HttpServer(api_, {.unix_socket = path}), std::invalid_argument);
}

// The token is asked for by peer, and a TCP peer from this host is loopback.
TEST_F(HttpServer, TheAuthorizationHeaderReachesTheApi) {
  const api::Api secured(engine_, {.token = "t0ken", .now = [] { return sample_time(); }});
  const api::HttpServer server(secured, {.addresses = {"127.0.0.1:0"}});
  address_ = server.addresses()[0];
  const std::string path = "/api/v1/backups";
  EXPECT_EQ(status_of(ask(get_text(path))), 401);
  EXPECT_EQ(status_of(ask("GET " + path + " HTTP/1.1\r\nAuthorization: Bearer t0ken\r\n\r\n")),
            200);
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpServer, ManyRequestsSideBySideAreAllAnswered) {
  serve();
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&] {
      Connection connection(address_);
      for (int n = 0; n < 20; ++n) {
        connection.send(get_text("/api/v1/backups/a"));
        answered += status_of(connection.receive()) == 200;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 320);
}

}  // namespace
}  // namespace api_tests
