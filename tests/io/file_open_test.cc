// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "io/file.h"
#include "io/owned_fd.h"
#include "tests/support/ring_fixture.h"

/// What a directory to which others may write must not do to the one who opens files there.
namespace io {
namespace {

namespace fs = std::filesystem;

class OpenedFiles : public support::RingTest {
 protected:
  OpenedFiles() {
    std::string pattern = fs::temp_directory_path() / "varve-io-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    std::ofstream(path("precious")) << kPrecious;
  }
  ~OpenedFiles() override { fs::remove_all(directory_); }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  std::unique_ptr<File> open(const std::string& name, OpenMode mode) {
    return run(runtime().files.open(path(name), mode));
  }
  std::string refusal_of(const std::string& name, OpenMode mode) {
    try {
      open(name, mode);
    } catch (const std::system_error& failure) {
      return failure.what();
    }
    return "(not refused)";
  }
  void expect_precious_untouched() {
    EXPECT_EQ(run(read_text(runtime().files, path("precious"))), kPrecious);
  }

  static constexpr const char* kPrecious = "not varve's";
  static constexpr OpenMode kModes[] = {OpenMode::read_only, OpenMode::read_write,
                                        OpenMode::own_or_create};
  std::string directory_;
};

TEST_F(OpenedFiles, AreNeverReachedThroughASymbolicLink) {
  fs::create_symlink("precious", path("link"));
  fs::create_symlink("nothing", path("dangling"));
  for (const OpenMode mode : kModes) {
    EXPECT_EQ(refusal_of("link", mode), "open " + path("link") +
                                            ", which is a symbolic link and not a regular file: "
                                            "Invalid argument");
    EXPECT_NE(refusal_of("dangling", mode), "(not refused)");
  }
  EXPECT_FALSE(fs::exists(path("nothing")));
  expect_precious_untouched();
}

TEST_F(OpenedFiles, AreRegularAndAFifoBlocksNothing) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  fs::create_directory(path("directory"));
  for (const OpenMode mode : kModes) {
    EXPECT_EQ(
        refusal_of("fifo", mode),
        "open " + path("fifo") + ", which is a FIFO and not a regular file: Invalid argument");
    EXPECT_NE(refusal_of("directory", mode), "(not refused)");
  }
}

TEST_F(OpenedFiles, OfOnesOwnHaveOneNameAndOneOwner) {
  EXPECT_EQ(run(open("lock", OpenMode::own_or_create)->size()), 0u) << "made when missing";
  open("lock", OpenMode::own_or_create);
  fs::create_hard_link(path("precious"), path("second name"));
  EXPECT_EQ(refusal_of("second name", OpenMode::own_or_create),
            "open " + path("second name") + ", which has other names too: Operation not permitted");
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  ASSERT_EQ(::chown(path("lock").c_str(), 65534, 65534), 0);
  EXPECT_EQ(refusal_of("lock", OpenMode::own_or_create),
            "open " + path("lock") + ", which belongs to user 65534: Operation not permitted");
  expect_precious_untouched();
}

TEST_F(OpenedFiles, AreFoundThroughALinkThatTheOperatorNamed) {
  fs::create_symlink("precious", path("link"));
  EXPECT_EQ(run(follow_link(runtime().files, path("link"))), fs::canonical(path("precious")));
  EXPECT_EQ(run(follow_link(runtime().files, path("precious"))), path("precious"));
  EXPECT_EQ(run(follow_link(runtime().files, path("missing"))), path("missing"));
}

/// One lock of the kernel belongs to one description, and a request under way keeps its own alive.
/// /proc/locks shows every one, with device and inode.
TEST_F(OpenedFiles, AreLockedByEveryDescriptionThatWrites) {
  const auto file = open("precious", OpenMode::read_write);
  if (file->direct_alignment() == 1) GTEST_SKIP() << "this file system lives in the page cache";
  struct stat status {};
  ASSERT_EQ(::stat(path("precious").c_str(), &status), 0);
  const auto locks = [&] {
    const std::string inode = ":" + std::to_string(status.st_ino) + " 100 100";
    std::ifstream shown("/proc/locks");
    int count = 0;
    for (std::string line; std::getline(shown, line);) {
      count += line.find("OFDLCK") != std::string::npos && line.ends_with(inode);
    }
    return count;
  };
  EXPECT_TRUE(file->lock_byte_shared(100));
  EXPECT_EQ(locks(), 2);
  EXPECT_FALSE(file->byte_is_locked_elsewhere(100)) << "its own is no conflict";
  EXPECT_EQ(locks(), 2);
  file->unlock_byte(100);
  EXPECT_EQ(locks(), 0);
}

TEST_F(OpenedFiles, AreSeenToBeOpenElsewhere) {
  const auto file = open("precious", OpenMode::read_only);
  EXPECT_FALSE(run(file->is_open_elsewhere()));
  const OwnedFd other(::open(path("precious").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_TRUE(run(file->is_open_elsewhere()));
}

/// What a crash leaves between the two steps that stand for a rename without replacement.
TEST_F(OpenedFiles, WithTwoNamesLoseTheFirstWhenItIsRenamedToTheSecond) {
  fs::create_hard_link(path("precious"), path("published"));
  run(runtime().files.rename(path("precious"), path("published"), false));
  EXPECT_FALSE(fs::exists(path("precious")));
  EXPECT_EQ(run(read_text(runtime().files, path("published"))), kPrecious);
}

}  // namespace
}  // namespace io
