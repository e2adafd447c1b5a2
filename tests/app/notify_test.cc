// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "app/notify/delivery.h"
#include "app/notify/options.h"
#include "app/options.h"

/// How notifications leave varve; tests/e2e/test_alerts.py has a real webhook and a whole server.
namespace app {
namespace {

using namespace std::chrono_literals;

TEST(WebhookUrls, AreShownWithoutThePathThatMayBeASecret) {
  EXPECT_EQ(shown_url(parse_webhook_url("http://hooks.example:8080/a/b?c=d#e")),
            "http://hooks.example:8080");
  EXPECT_THROW(parse_webhook_url("https://user:secret@a/"), UsageError);
}

TEST(Messages, AreJsonAndAnEnvironment) {
  engine::Notification told;
  told.event = engine::NotificationEvent::failed;
  told.at = engine::Time(std::chrono::seconds(1759913694));
  told.vm_name = "web \"01\"";
  told.backup_id = "backup-web01-1";
  told.text = std::string(5000, 'x');
  told.details = {{"code", "stalled"}};
  const Message message = message_of(told, "b1");
  const auto json = nlohmann::json::parse(message.json);
  EXPECT_EQ(json["event"], "failed");
  EXPECT_EQ(json["at"], "2025-10-08T08:54:54Z");
  EXPECT_EQ(json["vm_name"], "web \"01\"");
  EXPECT_EQ(json["repository_id"], "");
  EXPECT_EQ(json["text"].get<std::string>().size(), 4096u);
  EXPECT_EQ(json["host"], "b1");
  EXPECT_EQ(json["details"]["code"], "stalled");
  const std::map<std::string, std::string> environment(message.environment.begin(),
                                                       message.environment.end());
  EXPECT_EQ(environment.size(), json.size() - 1) << "all but the details";
  EXPECT_EQ(environment.at("VARVE_EVENT"), "failed");
  EXPECT_EQ(environment.at("VARVE_VM_NAME"), "web \"01\"");
  EXPECT_EQ(message.about, "failed backup-web01-1");
}

/// Fails as often as it is told to, or holds whoever comes until it is interrupted.
struct FakeWay final : DeliveryWay {
  struct Seen {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> delivered;
    int failures = 0, tries = 0;
    bool may_help_again = true, holds = false, interrupted = false;
  };
  explicit FakeWay(Seen& into) : seen(into) {}

  void deliver(const Message& message) override {
    std::unique_lock lock(seen.mutex);
    ++seen.tries;
    seen.changed.notify_all();
    if (seen.holds) {
      seen.changed.wait(lock, [this] { return seen.interrupted; });
      throw DeliveryFailure("interrupted", false);
    }
    if (seen.failures > 0) {
      --seen.failures;
      throw DeliveryFailure("no", seen.may_help_again);
    }
    seen.delivered.push_back(message.about);
  }
  void interrupt() noexcept override {
    const std::lock_guard lock(seen.mutex);
    seen.interrupted = true;
    seen.changed.notify_all();
  }

  Seen& seen;
};

class Deliveries : public ::testing::Test {
 protected:
  static constexpr DeliveryTimes kQuick{.tries = 3, .first_pause = 1ms, .at_stop = 200ms};

  static std::shared_ptr<const Message> message(const std::string& about) {
    return std::make_shared<const Message>(Message{"{}", {}, about});
  }
  /// Delivers what was added, and stops; what became of it.
  DeliveryQueue::Counts counts_of(const std::vector<std::string>& messages) {
    auto queue = std::make_unique<DeliveryQueue>("url", std::make_unique<FakeWay>(seen), kQuick);
    for (const std::string& one : messages) queue->add(message(one));
    const auto end = std::chrono::steady_clock::now() + 10s;
    DeliveryQueue::Counts counts;
    do {
      counts = queue->counts();
    } while (counts.delivered + counts.failed < messages.size() &&
             std::chrono::steady_clock::now() < end);
    return counts;
  }

  FakeWay::Seen seen;
};

TEST_F(Deliveries, GoInTheirOrderAndAreTriedThreeTimes) {
  seen.failures = 2;
  const auto counts = counts_of({"one", "two"});
  EXPECT_EQ(counts.delivered, 2u);
  EXPECT_EQ(seen.delivered, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(seen.tries, 4);
}

TEST_F(Deliveries, AreGivenUpAfterThatAndTheNextOnesGoOn) {
  seen.failures = 3;
  const auto counts = counts_of({"one", "two"});
  EXPECT_EQ(counts.failed, 1u);
  EXPECT_EQ(seen.delivered, std::vector<std::string>{"two"});
}

TEST_F(Deliveries, AreNotTriedAgainWhereThatCannotHelp) {
  seen.failures = 1;
  seen.may_help_again = false;
  EXPECT_EQ(counts_of({"one"}).failed, 1u);
  EXPECT_EQ(seen.tries, 1);
}

TEST_F(Deliveries, WaitInABoundedQueueAndAStopDoesNotWaitForThem) {
  seen.holds = true;
  const auto begun = std::chrono::steady_clock::now();
  {
    DeliveryQueue queue("url", std::make_unique<FakeWay>(seen), kQuick);
    queue.add(message("held"));
    {
      std::unique_lock lock(seen.mutex);
      seen.changed.wait(lock, [this] { return seen.tries == 1; });
    }
    for (size_t at = 0; at < DeliveryQueue::kWaitingMax; ++at) queue.add(message("waits"));
    EXPECT_EQ(queue.counts().dropped, 0u);
    queue.add(message("one too many"));
    EXPECT_EQ(queue.counts().dropped, 1u);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s);
  EXPECT_EQ(seen.tries, 1) << "what waited was dropped";
}

/// A resolver that does not answer before the test ends.
class HangingResolver {
 public:
  ~HangingResolver() {
    const std::lock_guard lock(state_->mutex);
    state_->is_released = true;
    state_->changed.notify_all();
  }
  ResolveHost resolve() const {
    return [state = state_](const std::string&) -> std::vector<std::string> {
      std::unique_lock lock(state->mutex);
      ++state->asked;
      state->changed.notify_all();
      state->changed.wait_for(lock, 30s, [&] { return state->is_released; });
      throw std::runtime_error("nobody knows it");
    };
  }
  void wait_until_asked() const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->asked > 0; });
  }
  int asked() const {
    const std::lock_guard lock(state_->mutex);
    return state_->asked;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    int asked = 0;
    bool is_released = false;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

TEST_F(Deliveries, EndInTimeAlsoWhileTheSystemLooksUpTheHost) {
  HangingResolver hanging;
  auto queue = std::make_unique<DeliveryQueue>(
      "url", make_webhook("http://hooks.example/", "varve/0", hanging.resolve()), kQuick);
  queue->add(message("one"));
  hanging.wait_until_asked();
  const auto begun = std::chrono::steady_clock::now();
  queue.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s) << "200 ms for what waits";
}

TEST(HostLookups, AreOneAtATimeAndEndInTime) {
  HangingResolver hanging;
  HostLookup lookup("hooks.example", hanging.resolve());
  const auto begun = std::chrono::steady_clock::now();
  for (int time = 0; time < 3; ++time) {
    EXPECT_TRUE(lookup.addresses(std::chrono::steady_clock::now() + 20ms).empty());
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s);
  hanging.wait_until_asked();
  EXPECT_EQ(hanging.asked(), 1) << "no thread for each try";
}

TEST(HostLookups, SayWhatTheSystemSays) {
  const auto later = [] { return std::chrono::steady_clock::now() + 10s; };
  using Addresses = std::vector<std::string>;
  EXPECT_EQ(HostLookup("127.0.0.1").addresses(later()), Addresses{"127.0.0.1"});
  EXPECT_EQ(HostLookup("::1").addresses(later()), Addresses{"::1"});
  int asked = 0;
  HostLookup lookup("hooks.example", [&](const std::string& host) -> Addresses {
    EXPECT_EQ(host, "hooks.example");
    if (++asked == 1) throw std::runtime_error("nobody knows it");
    return {"192.0.2.1"};
  });
  try {
    lookup.addresses(later());
    FAIL();
  } catch (const std::runtime_error& failure) {
    EXPECT_STREQ(failure.what(), "nobody knows it");
  }
  EXPECT_EQ(lookup.addresses(later()), Addresses{"192.0.2.1"}) << "it is asked anew";
}

class Commands : public ::testing::Test {
 protected:
  Commands() : file_("/tmp/varve-notify-test-" + std::to_string(::getpid())) {}
  ~Commands() override { std::filesystem::remove(file_); }

  std::string written() const {
    std::ifstream file(file_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const std::string file_;
  const Message message_{"{\"event\":\"failed\"}", {{"VARVE_EVENT", "failed"}}, "failed x"};
};

TEST_F(Commands, HaveTheJsonAtTheirInputAndTheRestInTheirEnvironment) {
  make_command("printf '%s ' \"$VARVE_EVENT\" >" + file_ + "; cat >>" + file_)->deliver(message_);
  EXPECT_EQ(written(), "failed {\"event\":\"failed\"}");
}

TEST_F(Commands, ThatFailAreFailures) {
  try {
    make_command("exit 7")->deliver(message_);
    FAIL();
  } catch (const DeliveryFailure& failure) {
    EXPECT_STREQ(failure.what(), "the command ended with status 7");
    EXPECT_FALSE(failure.may_help_again);
  }
  EXPECT_THROW(make_command("kill -9 $$")->deliver(message_), DeliveryFailure);
}

TEST_F(Commands, AreKilledWithWhatTheyHaveStartedWhenVarveStops) {
  const auto command =
      make_command("echo begun >" + file_ + "; (sleep 0.5; echo late >>" + file_ + ") & sleep 100");
  std::thread stop([&] {
    while (written().empty()) std::this_thread::sleep_for(1ms);
    command->interrupt();
  });
  EXPECT_THROW(command->deliver(message_), DeliveryFailure);
  stop.join();
  std::this_thread::sleep_for(700ms);
  EXPECT_EQ(written(), "begun\n");
}

}  // namespace
}  // namespace app
