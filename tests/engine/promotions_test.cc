// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fstream>
#include <thread>

#include "tests/engine/killed_engine.h"

/// Promotions of restores: killed at each step, cancelled, refused.
namespace engine_test {
namespace {

class Promotions : public KilledEngine {
 protected:
  void SetUp() override {
    KilledEngine::SetUp();
    register_vm("pgtest1", 2);
    job_ = back_up("pgtest1", BackupType::full, "one", 1).job.id;
    fs::create_directory(away());
  }

  std::string away() const { return temp.file("away"); }
  std::string make(std::optional<uint32_t> disk_id, RestoreMode mode = RestoreMode::writable) {
    return engine()
        .create_restore({.backup_id = job_, .disk_id = disk_id, .mode = mode})
        .restore.id;
  }
  Promotion promotion_of(const std::string& id) {
    return engine().restore(id).restore.promotion.value();
  }
  Promotion ended(const std::string& id) {
    for (int i = 0; i < 500 && promotion_of(id).state == PromotionState::copying; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return promotion_of(id);
  }
  std::vector<std::string> names_there() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(away())) {
      names.push_back(fs::relative(entry.path(), away()));
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  void expect_equals_point(const std::string& path, uint32_t disk) {
    const std::string image =
        engine().chain({.vm_name = "pgtest1", .disk_id = disk}).points.back().point.image_path;
    const auto compared = support::run_command("qemu-img compare " + path + " " + image);
    EXPECT_TRUE(compared.ok()) << compared.output;
    const auto info = support::run_command("qemu-img info " + path);
    EXPECT_EQ(info.output.find("backing file"), std::string::npos) << info.output;
  }

  std::string job_;
};

TEST_F(Promotions, OfOneDiskIsAnImageThatStandsAlone) {
  const std::string id = make(1);
  engine().promote_restore(id, {.path = away() + "/one.qcow2"});
  const Promotion promotion = ended(id);
  EXPECT_EQ(promotion.state, PromotionState::completed) << promotion.error;
  EXPECT_EQ(promotion.copied_bytes, promotion.total_bytes);
  EXPECT_GT(promotion.total_bytes, 0u);
  EXPECT_EQ(names_there(), std::vector<std::string>{"one.qcow2"});
  expect_equals_point(away() + "/one.qcow2", 1);
  engine().drop_restore(id);
  expect_equals_point(away() + "/one.qcow2", 1);
}

TEST_F(Promotions, OfSeveralDisksAreADirectory) {
  const std::string id = make(std::nullopt, RestoreMode::read_only);
  engine().promote_restore(id, {.path = away() + "/both", .format = DiskFormat::raw});
  EXPECT_EQ(ended(id).state, PromotionState::completed);
  EXPECT_EQ(names_there(),
            (std::vector<std::string>{"both", "both/disk-0.raw", "both/disk-1.raw"}));
  for (const uint32_t disk : {0u, 1u}) {
    expect_equals_point(away() + "/both/disk-" + std::to_string(disk) + ".raw", disk);
  }
}

TEST_F(Promotions, AKillLeavesTheWholeCopyOrNothing) {
  for (const bool both : {false, true}) {
    for (const std::string step : {"promotion_inserted", "promotion_copied", "promotion_named"}) {
      SCOPED_TRACE(step + (both ? ", two disks" : ", one disk"));
      const std::string id = make(both ? std::nullopt : std::optional(0u));
      copy_at(step, 1);
      engine().promote_restore(id, {.path = away() + "/copy.qcow2"});
      ended(id);
      ASSERT_TRUE(copied_);
      come_up_on_copy();
      const bool is_whole = step == "promotion_named";
      EXPECT_EQ(ended(id).state, is_whole ? PromotionState::completed : PromotionState::failed);
      EXPECT_EQ(names_there().size(), is_whole ? (both ? 3u : 1u) : 0u);
      if (is_whole) expect_equals_point(away() + "/copy.qcow2" + (both ? "/disk-0.qcow2" : ""), 0);
      engine().drop_restore(id);
      fs::remove_all(away() + "/copy.qcow2");
    }
  }
}

TEST_F(Promotions, WhatFailsLeavesNothingAndCanBeAskedForAgain) {
  const std::string id = make(0u);
  hub->reached = [](std::string_view step) {
    if (step == "promotion_copied") throw std::runtime_error("planned");
  };
  engine().promote_restore(id, {.path = away() + "/copy.qcow2"});
  EXPECT_EQ(ended(id).state, PromotionState::failed);
  EXPECT_EQ(promotion_of(id).error, "planned");
  EXPECT_EQ(names_there(), std::vector<std::string>{});
  hub->reached = [](std::string_view) {};
  engine().promote_restore(id, {.path = away() + "/copy.qcow2"});
  EXPECT_EQ(ended(id).state, PromotionState::completed);
}

TEST_F(Promotions, WhatCannotBeIsRefused) {
  const std::string id = make(0u);
  const auto refused = [&](const std::string& path) {
    return refusal_of([&] { engine().promote_restore(id, {.path = path}); });
  };
  for (const std::string path : {"relative", "/", "/no/such/directory/x", "/tmp/../x", "/tmp/"}) {
    EXPECT_EQ(refused(path), "invalid_path") << path;
  }
  EXPECT_EQ(refused(temp.file("repository") + "/x.qcow2"), "invalid_path");
  fs::create_directory_symlink(temp.file("repository"), away() + "/link");
  EXPECT_EQ(refused(away() + "/link/x.qcow2"), "invalid_path");
  std::ofstream(away() + "/there");
  std::ofstream(away() + "/other.partial");
  EXPECT_EQ(refused(away() + "/there"), "path_exists");
  EXPECT_EQ(refused(away() + "/other"), "path_exists");
  EXPECT_EQ(refusal_of([&] { engine().cancel_promotion(id); }), "promotion_is_not_running");
  EXPECT_EQ(refusal_of([&] { engine().cancel_promotion("no"); }), "restore_not_found");
  EXPECT_EQ(refusal_of([&] { engine().promote_restore("no", {.path = "/tmp/x"}); }),
            "restore_not_found");
}

TEST_F(Promotions, TwoCallersAtOnceAreOneCopy) {
  const std::string id = make(0u);
  std::atomic<int> begun = 0;
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      const std::string path = away() + "/copy-" + std::to_string(i);
      if (refusal_of([&] { engine().promote_restore(id, {.path = path}); }).empty()) ++begun;
      ended(id);
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(names_there().size(), static_cast<size_t>(begun));
  EXPECT_GE(begun, 1);
}

TEST_F(Promotions, ACancellationAndADropLeaveNothingOfTheCopy) {
  hub->on_data([&]() -> io::Task<void> {
    hub->faults.fail = [](const support::FileCall& call) {
      if (call.verb == "write") std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return 0;
    };
    co_return;
  });
  const std::string id = make(0u);
  engine().promote_restore(id, {.path = away() + "/copy.qcow2"});
  EXPECT_EQ(refusal_of([&] { engine().promote_restore(id, {.path = away() + "/b"}); }),
            "promotion_is_running");
  EXPECT_EQ(engine().cancel_promotion(id).restore.promotion->state, PromotionState::cancelled);
  EXPECT_EQ(names_there(), std::vector<std::string>{});
  engine().promote_restore(id, {.path = away() + "/copy.qcow2"});
  engine().drop_restore(id);
  EXPECT_TRUE(engine().restores().empty());
  EXPECT_EQ(names_there(), std::vector<std::string>{});
}

}  // namespace
}  // namespace engine_test
