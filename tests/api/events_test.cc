// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <memory>
#include <thread>

#include "http_fixture.h"

/// Server-Sent Events over real sockets: who listens is told what runs, and nobody else costs
/// anything.
namespace api_tests {
namespace {

class Events : public HttpServer {
 protected:
  Events() {
    ON_CALL(engine_, list_backups).WillByDefault([this](const engine::BackupFilter& filter) {
      EXPECT_EQ(filter.status, engine::ShownStatus::running);
      ++asked_;
      if (fails_) throw std::runtime_error("disk I/O error");
      engine::BackupList list;
      if (runs_) list.backups = {running_backup()};
      if (is_huge_) list.backups[0].job.vm_name.assign(32 << 20, 'x');
      list.total = list.backups.size();
      return list;
    });
  }
  /// Reads the head of the answer.
  void listen(Connection& connection) {
    connection.send(get_text("/api/v1/events"));
    head_ = connection.receive_head();
  }
  void expect_a_free_place() {
    for (int tries = 0; tries < 150; ++tries) {
      Connection another(address_);
      listen(another);
      if (status_of(head_) == 200) return;
      std::this_thread::sleep_for(20ms);
    }
    FAIL() << "the place of a listener that is gone is never free";
  }
  /// Data of the next event that is no comment.
  static Json next(Connection& connection) {
    for (;;) {
      std::string text = connection.receive_until("\n\n");
      if (text.empty()) return nullptr;
      constexpr std::string_view kBegin = "event: jobs\ndata: ";
      if (!text.starts_with(kBegin)) continue;
      return Json::parse(text.substr(kBegin.size()), nullptr, false);
    }
  }

  std::atomic<bool> runs_{false}, is_huge_{false}, fails_{false};
  std::atomic<int> asked_{0};
  std::string head_;
};

TEST_F(Events, TheRunningBackupsComeAtOnceAndWheneverTheyChange) {
  serve();
  Connection connection(address_);
  listen(connection);
  EXPECT_EQ(status_of(head_), 200);
  EXPECT_NE(head_.find("Content-Type: text/event-stream\r\n"), std::string::npos);
  EXPECT_NE(head_.find("Cache-Control: no-store\r\n"), std::string::npos);
  EXPECT_EQ(next(connection), Json::parse(R"({"backups":[],"total":0})"));
  runs_ = true;
  const Json event = next(connection);
  EXPECT_EQ(event["total"], 1);
  EXPECT_EQ(event["backups"][0]["backup_id"], "backup-pgtest1-1759913694");
  EXPECT_EQ(event, json_of(ask(get_text("/api/v1/backups?status=running"))));
  runs_ = false;
  EXPECT_EQ(next(connection)["total"], 0);
}

TEST_F(Events, TheEngineIsAskedOnceASecondForAllAndNotWithoutListeners) {
  serve();
  {
    std::vector<std::unique_ptr<Connection>> many;
    for (int i = 0; i < 8; ++i) {
      many.push_back(std::make_unique<Connection>(address_));
      listen(*many.back());
      EXPECT_EQ(next(*many.back())["total"], 0);
    }
    runs_ = true;
    for (auto& connection : many) EXPECT_EQ(next(*connection)["total"], 1);
    EXPECT_LE(asked_, 8 + 3);
  }
  std::this_thread::sleep_for(200ms);  // the ends of the connections arrive
  const int before = asked_;
  std::this_thread::sleep_for(1500ms);
  EXPECT_LE(asked_, before + 1);
}

TEST_F(Events, TooManyListenersAreToldSoAndAPlaceThatIsLeftIsFree) {
  serve({.event_streams_max = 1});
  auto first = std::make_unique<Connection>(address_);
  listen(*first);
  EXPECT_EQ(next(*first)["total"], 0);
  const std::string refusal = ask(get_text("/api/v1/events"));
  EXPECT_EQ(status_of(refusal), 503);
  EXPECT_EQ(json_of(refusal)["code"], "too_many_listeners");
  EXPECT_EQ(status_of(ask(get_text("/livez"))), 200);
  first.reset();
  expect_a_free_place();
}

TEST_F(Events, AListenerEndsWhenTheServerStops) {
  serve();
  Connection connection(address_);
  listen(connection);
  EXPECT_EQ(next(connection)["total"], 0);
  const auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 3s);
  EXPECT_TRUE(connection.is_closed_within(1s));
}

TEST_F(Events, AnEngineThatFailsIsAProblemAtFirstAndSilenceLater) {
  serve();
  Connection connection(address_);
  listen(connection);
  EXPECT_EQ(next(connection)["total"], 0);
  fails_ = true;
  EXPECT_EQ(status_of(ask(get_text("/api/v1/events"))), 500);
  EXPECT_FALSE(connection.is_closed_within(1200ms));
}

TEST_F(Events, AListenerThatDoesNotReadIsDropped) {
  serve({.event_streams_max = 1, .event_timeout = 300ms});
  runs_ = is_huge_ = true;  // more than the kernel takes for it
  Connection slow(address_);
  listen(slow);
  EXPECT_EQ(status_of(head_), 200);
  is_huge_ = false;
  expect_a_free_place();
}

TEST_F(Events, HeadSaysWhatWouldComeAndEnds) {
  serve();
  Connection connection(address_);
  connection.send("HEAD" + get_text("/api/v1/events").substr(3) + get_text("/livez"));
  EXPECT_NE(connection.receive_head().find("text/event-stream"), std::string::npos);
  EXPECT_EQ(json_of(connection.receive())["status"], "alive");
}

}  // namespace
}  // namespace api_tests
