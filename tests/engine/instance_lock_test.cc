// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/instance_lock.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "tests/support/ring_fixture.h"

namespace engine {
namespace {

namespace fs = std::filesystem;

class InstanceLocks : public support::RingTest {
 protected:
  InstanceLocks() {
    std::string pattern = fs::temp_directory_path() / "varve-lock-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    std::ofstream(path("precious")) << kPrecious;
  }
  ~InstanceLocks() override { fs::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  std::string text_of(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(path(name)).rdbuf();
    return text.str();
  }
  InstanceLock take() { return run(InstanceLock::acquire(runtime(), path("lock"), "it", 42)); }
  std::string refusal() {
    try {
      take();
    } catch (const std::exception& failure) {
      return failure.what();
    }
    return "(not refused)";
  }

  static constexpr const char* kPrecious = "another program's file, longer than a pid\n";
  std::string directory_;
};

TEST_F(InstanceLocks, HoldThePidAndAreTakenAgainWhenTheyWereGivenBack) {
  { const InstanceLock lock = take(); }
  EXPECT_EQ(text_of("lock"), "42\n");
  const InstanceLock lock = take();
  EXPECT_EQ(refusal(), "it is in use by another varve (pid 42)");
}

TEST_F(InstanceLocks, SayWhichFileIsLockedToThoseWhoOutliveThem) {
  std::optional<InstanceLock> lock = take();
  const std::optional<io::FileStatus> locked = lock->locked_file();
  lock.reset();  // while its holder waits for the file system
  const auto there = run(runtime().files.status(path("lock")));
  ASSERT_TRUE(locked && there);
  EXPECT_EQ(locked->device, there->device);
  EXPECT_EQ(locked->inode, there->inode);
}

TEST_F(InstanceLocks, TruncateNothingThroughALinkOfEitherKind) {
  fs::create_symlink("precious", path("lock"));
  EXPECT_NE(refusal().find("which is a symbolic link"), std::string::npos) << refusal();
  fs::remove(path("lock"));
  fs::create_hard_link(path("precious"), path("lock"));
  EXPECT_NE(refusal().find("which has other names too"), std::string::npos) << refusal();
  EXPECT_EQ(text_of("precious"), kPrecious);
}

TEST_F(InstanceLocks, RefuseAFifoAtOnce) {
  ASSERT_EQ(::mkfifo(path("lock").c_str(), 0600), 0);
  EXPECT_NE(refusal().find("which is a FIFO"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace engine
