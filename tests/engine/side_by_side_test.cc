// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/engine/engine_fixture.h"

/// Calls beside each other on one VM, and files that cannot be written: what is derived from the
/// catalogue fails nobody, and what was begun is finished.
namespace engine_test {
namespace {

namespace fs = std::filesystem;

class SideBySide : public EngineTest {
 protected:
  static constexpr size_t kDisks = 6;

  void SetUp() override {
    restart([](EngineOptions& options) { options.ports = free_ports(2 * kDisks); });
    register_vm("pgtest1", kDisks);
  }

  /// One thread for each id; the code words of their refusals, sorted.
  std::vector<std::string> delete_at_once(const std::vector<std::string>& ids) {
    std::vector<std::string> answers(ids.size());
    std::vector<std::thread> callers;
    for (size_t i = 0; i < ids.size(); ++i) {
      callers.emplace_back([this, &answers, &ids, i] {
        try {
          answers[i] = refusal_of([&] { engine().delete_backup(ids[i], false); });
        } catch (const std::exception& failure) {
          answers[i] = failure.what();
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    std::sort(answers.begin(), answers.end());
    return answers;
  }

  std::string chain_file_of(const BackupView& backup) const {
    return fs::path(backup.job.disks[0].image_path).parent_path().string() + "/chain.json";
  }
  static bool names(const std::string& chain_file, const std::string& image_id) {
    std::ifstream in(chain_file);
    const std::string text(std::istreambuf_iterator<char>(in), {});
    return text.find('"' + image_id + '"') != std::string::npos;
  }
};

TEST_F(SideBySide, FourDeletionsOfOneVmAllEndWell) {
  std::vector<std::string> ids;
  for (int serial = 1; serial <= 4; ++serial) {
    ids.push_back(back_up("pgtest1", BackupType::full, "x", serial).job.id);
  }
  EXPECT_EQ(delete_at_once(ids), std::vector<std::string>(4));
  EXPECT_TRUE(engine().list_backups({}).backups.empty());
  EXPECT_TRUE(repository_files().empty());
}

TEST_F(SideBySide, OfFourDeletionsOfOneBackupOneDeletesItAndTheOthersFindItGone) {
  const BackupView full = back_up("pgtest1", BackupType::full, "x", 1);
  const std::vector<std::string> expected = {"", "backup_not_found", "backup_not_found",
                                             "backup_not_found"};
  EXPECT_EQ(delete_at_once(std::vector<std::string>(4, full.job.id)), expected);
  EXPECT_TRUE(repository_files().empty());
}

TEST_F(SideBySide, APublishAndADeletionOfTheSameVmBothEndWell) {
  BackupView old = back_up("pgtest1", BackupType::full, "x", 1);
  for (int serial = 2; serial <= 12; ++serial) {
    const BackupView next = start("pgtest1", BackupType::full);
    std::vector<std::unique_ptr<Writer>> writers;
    for (const JobDisk& disk : next.job.disks) {
      writers.push_back(std::make_unique<Writer>(*hub, disk.export_name));
      ASSERT_TRUE(writers.back()->connect());
      if (disk.index + 1 < kDisks) complete(next, disk.index, change_id(disk.index, serial));
    }
    std::thread deleter(
        [&] { EXPECT_EQ(delete_at_once({old.job.id}), std::vector<std::string>(1)); });
    EXPECT_EQ(refusal_of([&] { complete(next, kDisks - 1, change_id(kDisks - 1, serial)); }), "");
    deleter.join();
    EXPECT_EQ(state_of(next.job.id), "completed");
    EXPECT_TRUE(names(chain_file_of(next), next.job.disks[0].image_id));
    EXPECT_FALSE(names(chain_file_of(next), old.job.disks[0].image_id));
    old = next;
  }
}

TEST_F(SideBySide, AChainFileThatCannotBeWrittenFailsNobodyAndIsWrittenLater) {
  const BackupView first = back_up("pgtest1", BackupType::full, "x", 1);
  const std::string chain_file = chain_file_of(first);
  fs::remove(chain_file);
  fs::create_directories(chain_file + "/in the way");
  const BackupView second = back_up("pgtest1", BackupType::incremental, "y", 2);
  EXPECT_EQ(state_of(second.job.id), "completed");
  const BackupView third = back_up("pgtest1", BackupType::incremental, "z", 3);
  EXPECT_EQ(refusal_of([&] { engine().delete_backup(third.job.id, false); }), "");
  fs::remove_all(chain_file);
  EXPECT_TRUE(wait_until([&] { return names(chain_file, second.job.disks[0].image_id); }));
  EXPECT_FALSE(names(chain_file, third.job.disks[0].image_id));
}

TEST_F(SideBySide, ADeletionThatAFileHoldsUpIsFinishedInTheBackground) {
  const BackupView first = back_up("pgtest1", BackupType::full, "x", 1);
  const BackupView second = back_up("pgtest1", BackupType::incremental, "y", 2);
  std::atomic<bool> broken = true;
  hub->reached = [&](std::string_view step) {
    if (step == "unlinked" && broken)
      throw std::system_error(EIO, std::generic_category(), "unlink");
  };
  EXPECT_ANY_THROW(engine().delete_backup(first.job.id, true));
  EXPECT_EQ(refusal_of([&] { engine().backup(second.job.id); }), "backup_not_found");
  EXPECT_FALSE(repository_files().empty());
  broken = false;
  EXPECT_TRUE(wait_until([&] { return repository_files().empty(); }));
  hub.reset();  // before what its hook refers to
}

}  // namespace
}  // namespace engine_test
