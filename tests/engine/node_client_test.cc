// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/node_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "io/task_scope.h"

namespace {

using namespace std::chrono_literals;
using engine::NodeAnswer;
using engine::NodeCall;
using Outcome = engine::NodeAnswer::Outcome;

/// An executor that the test's thread turns by itself.
class Turned : public io::Executor {
 public:
  void resume_soon(io::Waiter& waiter) noexcept override {
    post([&waiter] { waiter.handle.resume(); });
  }
  void post(io::Job job) override {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    arrived_.notify_one();
  }
  bool here() const override { return std::this_thread::get_id() == thread_; }

  void turn_until(const std::function<bool()>& done) {
    while (!done()) {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return !jobs_.empty(); });
      io::Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
  }

 private:
  const std::thread::id thread_ = std::this_thread::get_id();
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<io::Job> jobs_;
};

/// A TCP peer on loopback. Without serve() it never accepts, so that a client's bytes get no
/// answer.
class Peer {
 public:
  Peer() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at);
    socklen_t size = sizeof at;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &size);
    port_ = ntohs(at.sin_port);
  }
  ~Peer() {
    ::shutdown(fd_, SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    ::close(fd_);
  }
  void listen() { ::listen(fd_, 8); }

  /// Reads one whole request per connection, counts it, answers with `text` and closes.
  void serve(std::string text) {
    listen();
    thread_ = std::thread([this, text = std::move(text)] {
      for (;;) {
        const int client = ::accept(fd_, nullptr, nullptr);
        if (client < 0) return;
        read_request(client);
        ++requests_;
        if (!text.empty()) ::send(client, text.data(), text.size(), MSG_NOSIGNAL);
        ::close(client);
      }
    });
  }
  uint16_t port() const { return port_; }
  int requests() const { return requests_; }
  // The counter orders these reads behind the serving thread's writes.
  std::string head() const { return requests() > 0 ? head_ : ""; }
  std::string body() const { return requests() > 0 ? body_ : ""; }

 private:
  void read_request(int client) {
    std::string got;
    char piece[4096];
    size_t end = 0, wanted = 0;
    do {
      const ssize_t count = ::recv(client, piece, sizeof piece, 0);
      if (count <= 0) return;
      got.append(piece, count);
      end = got.find("\r\n\r\n");
      if (end == got.npos) continue;
      const size_t length = got.find("Content-Length: ");
      wanted = end + 4 + std::stoul(got.substr(length + 16));
    } while (end == got.npos || got.size() < wanted);
    head_ = got.substr(0, end);
    body_ = got.substr(end + 4);
  }

  int fd_;
  uint16_t port_ = 0;
  std::atomic<int> requests_ = 0;
  std::string head_, body_;
  std::thread thread_;
};

NodeCall some_call() {
  return {.job_id = "backup-pgtest1-1759913694",
          .vm_name = "pgtest1",
          .vm_path = "/DC1/vm/pgtest1",
          .vcenter_host = "vc1.example",
          .vcenter_user = "user",
          .vcenter_password = "s3cret",
          .nbd_targets = "2000:nbd://127.0.0.1:10100/pgtest1-1759913694-disk0",
          .backup_type = "full",
          .nbd_host = "127.0.0.1"};
}

class NodeClient : public ::testing::Test {
 protected:
  std::unique_ptr<engine::NodeClient> client_for(const Peer& peer, engine::NodeTimes times = {}) {
    const std::string url = "http://127.0.0.1:" + std::to_string(peer.port());
    return engine::make_node_client(executor_, io::HttpUrl::parse(url), times);
  }
  static io::Task<void> keep(engine::NodeClient& client, std::optional<NodeAnswer>& answer) {
    NodeCall call = some_call();
    answer = co_await client.call(std::move(call));
  }
  NodeAnswer call(engine::NodeClient& client) {
    std::optional<NodeAnswer> answer;
    io::TaskScope scope;
    scope.spawn(keep(client, answer));
    executor_.turn_until([&] { return answer.has_value(); });
    EXPECT_EQ(scope.running(), 0u);
    return *answer;
  }
  NodeAnswer call(const Peer& peer, engine::NodeTimes times = {}) {
    const auto client = client_for(peer, times);
    return call(*client);
  }

  Turned executor_;
  static constexpr engine::NodeTimes kShort{300ms, 600ms, 20ms, 40ms};
};

TEST_F(NodeClient, Status200And202AreAccepted) {
  for (const std::string status : {"200 OK", "202 Accepted"}) {
    Peer peer;
    peer.serve("HTTP/1.1 " + status + "\r\nContent-Length: 2\r\n\r\n{}");
    const NodeAnswer answer = call(peer);
    EXPECT_EQ(answer.outcome, Outcome::accepted);
    EXPECT_EQ(std::to_string(answer.status), status.substr(0, 3));
    EXPECT_TRUE(answer.may_have_started);
    EXPECT_EQ(peer.requests(), 1);
  }
}

TEST_F(NodeClient, SendsOnePostWithEveryFieldAsText) {
  Peer peer;
  peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  call(peer);
  EXPECT_TRUE(peer.head().starts_with("POST /api/v1/backup/start HTTP/1.1\r\n")) << peer.head();
  EXPECT_NE(peer.head().find("Content-Type: application/json"), std::string::npos);
  EXPECT_EQ(peer.body(),
            R"({"job_id":"backup-pgtest1-1759913694","vm_name":"pgtest1",)"
            R"("vm_path":"/DC1/vm/pgtest1","vcenter_host":"vc1.example","vcenter_user":"user",)"
            R"("vcenter_password":"s3cret",)"
            R"("nbd_targets":"2000:nbd://127.0.0.1:10100/pgtest1-1759913694-disk0",)"
            R"("backup_type":"full","previous_change_id":"PLACEHOLDER","nbd_host":"127.0.0.1"})");
}

TEST_F(NodeClient, AnAnswerOfErrorIsARefusalWithItsText) {
  Peer peer;
  peer.serve("HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\nnot like that");
  const NodeAnswer answer = call(peer);
  EXPECT_EQ(answer.outcome, Outcome::refused);
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.text, "not like tha");
  EXPECT_FALSE(answer.may_have_started);
  EXPECT_EQ(peer.requests(), 1);
}

TEST_F(NodeClient, BlotsThePasswordOutOfTheNodesText) {
  Peer peer;
  peer.serve("HTTP/1.1 500 No\r\nConnection: close\r\n\r\nrun --password s3cret failed: s3cret");
  EXPECT_EQ(call(peer).text, "run --password *** failed: ***");
}

TEST_F(NodeClient, ADroppedConnectionIsNeverRetried) {
  Peer peer;
  peer.serve("");
  const NodeAnswer answer = call(peer);
  EXPECT_EQ(answer.outcome, Outcome::unreachable);
  EXPECT_TRUE(answer.may_have_started);
  EXPECT_NE(answer.text.find("POST http://127.0.0.1:"), std::string::npos) << answer.text;
  EXPECT_EQ(peer.requests(), 1);
}

TEST_F(NodeClient, ASilentNodeIsGivenUpInTime) {
  Peer peer;
  peer.listen();
  const auto begin = std::chrono::steady_clock::now();
  const NodeAnswer answer = call(peer, kShort);
  EXPECT_EQ(answer.outcome, Outcome::unreachable);
  EXPECT_NE(answer.text.find("no answer within 600 ms"), std::string::npos) << answer.text;
  const auto taken = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(taken, 550ms);
  EXPECT_LT(taken, 5s);
}

TEST_F(NodeClient, ARefusedConnectionIsTriedThreeTimes) {
  Peer peer;  // bound and not listening: the connection is refused
  const auto begin = std::chrono::steady_clock::now();
  const NodeAnswer answer = call(peer, {300ms, 5s, 100ms, 200ms});
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 300ms);
  EXPECT_EQ(answer.outcome, Outcome::unreachable);
  EXPECT_FALSE(answer.may_have_started);
  EXPECT_NE(answer.text.find("Connection refused"), std::string::npos) << answer.text;
}

TEST_F(NodeClient, ATunnelThatComesUpBetweenTheAttemptsIsUsed) {
  Peer peer;
  std::thread late([&] {
    std::this_thread::sleep_for(150ms);
    peer.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  });
  const NodeAnswer answer = call(peer, {300ms, 5s, 50ms, 400ms});
  late.join();
  EXPECT_EQ(answer.outcome, Outcome::accepted);
  EXPECT_EQ(peer.requests(), 1);
}

TEST_F(NodeClient, StopEndsCallsUnderWayAndLaterOnes) {
  Peer peer;
  peer.listen();
  const auto client = client_for(peer);
  std::thread stopper([&] {
    std::this_thread::sleep_for(50ms);
    client->stop();
  });
  EXPECT_EQ(call(*client).outcome, Outcome::unreachable);
  stopper.join();
  EXPECT_NE(call(*client).text.find("shutting down"), std::string::npos);
}

TEST_F(NodeClient, SeveralCallsRunSideBySide) {
  Peer silent, ready;
  silent.listen();
  ready.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  const auto slow = client_for(silent, {300ms, 1500ms, 20ms, 40ms});
  const auto quick = client_for(ready);
  std::optional<NodeAnswer> first, second;
  io::TaskScope scope;
  scope.spawn(keep(*slow, first));
  scope.spawn(keep(*quick, second));
  executor_.turn_until([&] { return second.has_value(); });
  EXPECT_FALSE(first.has_value());
  executor_.turn_until([&] { return first.has_value(); });
}

TEST(NodeCallBody, KeepsSpacesQuotesAndUnicode) {
  NodeCall call = some_call();
  call.vcenter_password = "a\"b\\c é";
  call.previous_change_id = "52 66 8c/5531";
  const auto read = nlohmann::json::parse(engine::node_call_body(call));
  EXPECT_EQ(read["vcenter_password"], call.vcenter_password);
  EXPECT_EQ(read["previous_change_id"], "52 66 8c/5531");
  for (const auto& [name, value] : read.items()) EXPECT_TRUE(value.is_string()) << name;
}

}  // namespace
