// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <deque>
#include <future>
#include <thread>

#include "http_fixture.h"

/// Slow peers, slow handlers and the end of the server.
namespace api_tests {
namespace {

// Closed when the request does not come in time, however it dawdles.
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

// Every answer within 15 s, except that of complete.
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

TEST_F(HttpServer, APeerThatDoesNotReadItsAnswerIsClosedAlsoAfterComplete) {
  const std::string large(8 << 20,
                          'x');  // the answer has it twice, which is more than sockets hold
  ON_CALL(engine_, complete)
      .WillByDefault([&](const engine::CompleteDisk&) -> engine::CompletedDisk {
        throw engine::Refusal(engine::RefusalKind::conflict, "large", large);
      });
  serve({.write_timeout = 200ms});
  Connection deaf(address_);
  deaf.send(post_text("/api/v1/backups/a/complete", R"({"change_id":"a/1"})"));
  deaf.wait_for_bytes();
  std::this_thread::sleep_for(800ms);
  EXPECT_LT(deaf.receive_rest().size(), 2 * large.size());
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpServer, ARequestThatWaitedTooLongIsNeverStarted) {
  Gate gate;
  EXPECT_CALL(engine_, delete_backup("slow", false)).WillOnce([&] {
    gate.pass();
    return engine::DeletedBackup{};
  });
  EXPECT_CALL(engine_, delete_backup("late", false)).Times(0);
  serve({.handler_threads_max = 1, .answer_timeout = 200ms});
  Connection busy(address_);
  busy.send("DELETE /api/v1/backups/slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
  gate.wait_for(1);
  EXPECT_EQ(status_of(ask("DELETE /api/v1/backups/late HTTP/1.1\r\nHost: localhost\r\n\r\n")), 503);
  gate.open();
  server_->stop();
}

// 401 before the body, which is drained as it comes: strangers take no memory of requests.
TEST_F(HttpServer, TheBodyOfAStrangerIsNotWaitedFor) {
  const api::Api guarded(engine_,
                         {.tokens = one_token("s3cret"), .now = [] { return sample_time(); }});
  const api::HttpServer server(guarded, {.addresses = {"127.0.0.1:0"}});
  Connection stranger(server.addresses()[0]);
  stranger.send(
      "POST /api/v1/backups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{");
  const std::string answer = stranger.receive();
  EXPECT_EQ(status_of(answer), 401);
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(stranger.is_closed_within(5s));
}

// Without a body there is nothing in the way of the next request.
TEST_F(HttpServer, ARefusalKeepsTheConnectionWhereNoBodyComes) {
  const api::Api guarded(engine_,
                         {.tokens = one_token("s3cret"), .now = [] { return sample_time(); }});
  const api::HttpServer server(guarded, {.addresses = {"127.0.0.1:0"}});
  Connection stranger(server.addresses()[0]);
  for (int i = 0; i < 2; ++i) {
    stranger.send("POST /api/v1/backups/a/cancel HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_EQ(status_of(stranger.receive()), 401);
  }
}

// It may lie on a disk that does not answer.
TEST_F(HttpServer, ALineOfTheAuditLogDelaysNobodyElse) {
  Gate gate;
  const api::Api audited(engine_, {.now = [] { return sample_time(); },
                                   .audit = [&](std::string_view) { gate.pass(); }});
  const api::HttpServer server(audited, {.addresses = {"127.0.0.1:0"}});
  Connection stranger(server.addresses()[0]), other(server.addresses()[0]);
  stranger.send("POST /nowhere HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n");
  gate.wait_for(1);
  other.send(get_text("/livez"));
  EXPECT_EQ(status_of(other.receive()), 200);
  gate.open();
  EXPECT_EQ(status_of(stranger.receive()), 403);
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
  half.send("POST /api/v1/backups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12");
  std::this_thread::sleep_for(50ms);
  const auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  EXPECT_TRUE(half.is_closed_within(1s));
}

TEST_F(HttpServer, BeyondItsConnectionsTheLongestIdleOneGivesWay) {
  serve({.connections_max = 2});
  Connection first(address_), second(address_);
  first.send(get_text("/livez")), first.receive();
  second.send(get_text("/livez")), second.receive();
  first.send(get_text("/livez")), first.receive();
  Connection third(address_);
  third.send(get_text("/livez"));
  EXPECT_EQ(status_of(third.receive()), 200);
  EXPECT_TRUE(second.is_closed_within(5s));
  first.send(get_text("/livez"));
  EXPECT_EQ(status_of(first.receive()), 200);
}

TEST_F(HttpServer, SilentAndDawdlingConnectionsShutNobodyOut) {
  serve({.connections_max = 4});
  std::deque<Connection> silent;
  for (int number = 0; number < 8; ++number) {
    silent.emplace_back(address_);
    if (number % 2 == 0) silent.back().send("GET /livez HTTP/1.1\r\nHos");
  }
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
}

TEST_F(HttpServer, BeyondItsConnectionsItClosesAtOnceWhileAllAreAnswered) {
  Gate gate;
  ON_CALL(engine_, backup).WillByDefault([&](const std::string&) {
    gate.pass();
    return running_backup();
  });
  serve({.connections_max = 2});
  Connection first(address_), second(address_);
  for (Connection* const asking : {&first, &second}) {
    asking->send(get_text("/api/v1/backups/a"));
  }
  gate.wait_for(2);
  Connection third(address_);
  EXPECT_TRUE(third.is_closed_within(5s));
  gate.open();
  EXPECT_EQ(status_of(first.receive()), 200);
  EXPECT_EQ(status_of(second.receive()), 200);
}

TEST_F(HttpServer, ANodeThatDoesNotAnswerHoldsUpNobodyWhoAsksSomethingElse) {
  Gate node, storage;
  ON_CALL(engine_, start_backup).WillByDefault([&](const engine::StartBackup&) {
    node.pass();
    return running_backup();
  });
  ON_CALL(engine_, complete).WillByDefault([&](const engine::CompleteDisk&) {
    storage.pass();
    return engine::CompletedDisk{0, engine::JobState::completed, 1, 1};
  });
  serve({.handler_threads_max = 2, .answer_timeout = 10s});
  std::deque<Connection> starting, completing;
  for (int number = 0; number < 3; ++number) {
    starting.emplace_back(address_).send(post_text(
        "/api/v1/backups", R"({"vm_name":"a","backup_type":"full","repository_id":"1"})"));
  }
  node.wait_for(2);
  completing.emplace_back(address_).send(
      post_text("/api/v1/backups/a/complete", R"({"change_id":"a/1"})"));
  storage.wait_for(1);
  EXPECT_EQ(status_of(ask(get_text("/api/v1/backups/changeid?vm_name=b&disk_id=0"))), 200);
  storage.open();
  EXPECT_EQ(status_of(completing[0].receive()), 200);
  node.open();
  for (Connection& connection : starting) EXPECT_EQ(status_of(connection.receive()), 200);
}

}  // namespace
}  // namespace api_tests
