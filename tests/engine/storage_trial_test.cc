// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/storage_trial.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/support/command.h"
#include "tests/support/ring_fixture.h"

/// What the test of a repository finds, on this machine's file system and on one that lacks things
/// (tests/support/lesser_file_system.cc).
namespace engine {
namespace {

namespace fs = std::filesystem;

class StorageTrial : public support::RingTest {
 protected:
  StorageTrial() {
    std::string pattern = fs::temp_directory_path() / "varve-trial-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    fs::create_directory(path("files"));
    fs::create_directory(path("mount"));
  }
  ~StorageTrial() override {
    if (mounted_) support::run_command({"umount", path("mount")});
    fs::remove_all(directory_);
  }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  /// Mounts it; skips the test where that is not possible, with the reason.
  void mount_without(const std::vector<std::string>& lacks) {
    const char* const program = std::getenv("LESSER_FILE_SYSTEM");
    if (program == nullptr || *program == '\0') GTEST_SKIP() << "built without libfuse3";
    if (::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "/dev/fuse cannot be used here";
    std::vector<std::string> command = {program, path("files"), path("mount")};
    command.insert(command.end(), lacks.begin(), lacks.end());
    const auto result = support::run_command(command);  // goes on in the background
    if (!result.ok()) GTEST_SKIP() << "no FUSE mount here: " << result.output;
    mounted_ = true;
  }

  StorageAbilities try_mount() { return run(try_storage(runtime(), path("mount"))); }
  std::string failure_of_mount() {
    try {
      try_mount();
    } catch (const std::exception& failure) {
      return failure.what();
    }
    return "(no failure)";
  }
  size_t files_left() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(path("files")), fs::directory_iterator()));
  }

  std::string directory_;
  bool mounted_ = false;
};

constexpr StorageAbilities kAll{true, true, true, true, true};

TEST_F(StorageTrial, LeavesNothingOnTheMachinesOwnFileSystem) {
  const StorageAbilities found = run(try_storage(runtime(), path("files")));
  EXPECT_TRUE(found.locks);
  EXPECT_TRUE(found.symbolic_links);
  EXPECT_EQ(files_left(), 0u);
}

TEST_F(StorageTrial, NamesTheDirectoryThatIsMissing) {
  EXPECT_THROW(run(try_storage(runtime(), path("gone"))), std::system_error);
}

TEST_F(StorageTrial, PassesWithoutRenameFlagsAndWithoutHardLinks) {
  mount_without({"--no-rename-flags"});
  if (IsSkipped()) return;
  EXPECT_EQ(try_mount(), kAll);
  support::run_command({"umount", path("mount")});
  mounted_ = false;
  mount_without({"--no-rename-flags", "--no-hard-links"});
  EXPECT_EQ(try_mount(), kAll);
  EXPECT_EQ(files_left(), 0u);
}

TEST_F(StorageTrial, FindsEachAbilityThatIsMissing) {
  const std::vector<std::pair<std::string, bool StorageAbilities::*>> cases = {
      {"--no-direct", &StorageAbilities::direct_io},
      {"--no-allocate", &StorageAbilities::allocate_ahead},
      {"--no-punch", &StorageAbilities::punch_holes},
      {"--no-locks", &StorageAbilities::locks},
      {"--no-symlinks", &StorageAbilities::symbolic_links}};
  for (const auto& [lack, member] : cases) {
    mount_without({lack});
    if (IsSkipped()) return;
    StorageAbilities expected = kAll;
    expected.*member = false;
    EXPECT_EQ(try_mount(), expected) << lack;
    support::run_command({"umount", path("mount")});
    mounted_ = false;
  }
  EXPECT_EQ(files_left(), 0u);
}

TEST_F(StorageTrial, ReadsBackWhatWasReportedAsWritten) {
  mount_without({"--wrong-bytes"});
  if (IsSkipped()) return;
  EXPECT_NE(failure_of_mount().find("find what was written in "), std::string::npos)
      << failure_of_mount();
  EXPECT_EQ(files_left(), 0u);
}

TEST_F(StorageTrial, SaysWhichCallFailed) {
  mount_without({});
  if (IsSkipped()) return;
  std::ofstream(path("files.eio")) << "x";
  EXPECT_NE(failure_of_mount().find("Input/output error"), std::string::npos) << failure_of_mount();
  EXPECT_EQ(files_left(), 0u);
}

}  // namespace
}  // namespace engine
