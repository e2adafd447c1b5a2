// SPDX-License-Identifier: Apache-2.0
#include "io/file.h"
#include "io/owned_fd.h"
#include "io/page_cache.h"
#include "io/task_scope.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class Files : public support::RingTest {
 protected:
  Files() {
    std::string pattern = std::filesystem::temp_directory_path() / "varve-io-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~Files() override { std::filesystem::remove_all(directory_); }
  FileSystem& files() { return runtime().files; }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  std::unique_ptr<File> create(const std::string& name) {
    return run(files().open(path(name), OpenMode::create_new));
  }
  static std::vector<std::byte> random_bytes(size_t count) {
    std::mt19937_64 random(count);
    std::vector<std::byte> bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    return bytes;
  }
  std::string directory_;
};

TEST_F(Files, ReadBackWhatWasWrittenAtAnyAlignment) {
  const auto file = create("data");
  std::vector<std::byte> model(2 << 20);
  std::mt19937_64 random(7);
  for (int i = 0; i < 300; ++i) {
    const bool aligned = i % 2 == 0;
    const uint64_t unit = aligned ? 4096 : 1;
    const uint64_t offset = random() % (model.size() / 2 / unit) * unit;
    const uint64_t length = (1 + random() % (model.size() / 2 / unit / 4)) * unit;
    const Buffer buffer = runtime().buffers.try_acquire(length, offset);
    for (std::byte& byte : buffer.bytes()) byte = static_cast<std::byte>(random());
    run(file->write(offset, buffer.bytes()));
    std::copy(buffer.bytes().begin(), buffer.bytes().end(),
              model.begin() + static_cast<ptrdiff_t>(offset));
  }
  const Buffer whole = runtime().buffers.try_acquire(model.size());
  run(file->read(0, whole.bytes()));
  EXPECT_TRUE(std::equal(model.begin(), model.end(), whole.data()));
}

TEST_F(Files, GatheredPiecesLieOneBehindTheOther) {
  const auto file = create("data");
  const auto bytes = random_bytes(10'000);
  const std::span all(bytes);
  const std::vector<iovec> pieces = {{const_cast<std::byte*>(all.data()), 1},
                                     {const_cast<std::byte*>(all.data() + 1), 4'999},
                                     {const_cast<std::byte*>(all.data() + 5'000), 5'000}};
  run(file->write_gathered(123, pieces));
  std::vector<std::byte> back(10'000);
  run(file->read(123, back));
  EXPECT_EQ(back, bytes);
}

/// What `cp` or qemu-img has just written is read from memory, not from the disk once more.
TEST_F(Files, WhatIsInThePageCacheIsKnownToBeThere) {
  constexpr uint64_t kBytes = 1 << 20;
  { create("data"); }
  const OwnedFd fd(::open(path("data").c_str(), O_RDWR | O_CLOEXEC));
  const auto bytes = random_bytes(kBytes);
  ASSERT_EQ(::pwrite(fd.get(), bytes.data(), kBytes, 0), static_cast<ssize_t>(kBytes));
  if (!is_in_page_cache(fd.get(), 0, kBytes)) GTEST_SKIP() << "this kernel does not say";
  EXPECT_TRUE(is_in_page_cache(fd.get(), 4096, 8192));
  EXPECT_FALSE(is_in_page_cache(fd.get(), 0, kBytes + 1));  // nothing is there past the end
  const auto file = run(files().open(path("data"), OpenMode::read_only));
  const Buffer whole = runtime().buffers.try_acquire(kBytes);
  run(file->read(0, whole.bytes()));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), whole.data()));
  ::fsync(fd.get());
  ::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (file->direct_alignment() == 1) GTEST_SKIP() << "this file system lives in the page cache";
  EXPECT_FALSE(is_in_page_cache(fd.get(), 0, kBytes));
  run(file->read(0, whole.bytes()));
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), whole.data()));
  EXPECT_FALSE(is_in_page_cache(fd.get(), 0, kBytes));  // a large read leaves nothing behind
}

TEST_F(Files, ReadAsZeroesPastTheirEnd) {
  const auto file = create("data");
  run(file->write(0, random_bytes(100)));
  std::vector<std::byte> back(200, std::byte{0xff});
  run(file->read(0, back));
  EXPECT_TRUE(
      std::all_of(back.begin() + 100, back.end(), [](std::byte b) { return b == std::byte{}; }));
}

TEST_F(Files, NameVerbObjectRangeAndCauseInTheirFailures) {
  run(files().open(path("data"), OpenMode::create_new));
  const auto file = run(files().open(path("data"), OpenMode::read_only));
  try {
    run(file->write(65536, random_bytes(4096)));
    FAIL() << "a read-only file took a write";
  } catch (const std::system_error& failure) {
    EXPECT_EQ(failure.code().value(), EBADF);
    EXPECT_EQ(std::string(failure.what()),
              "write " + path("data") + " @65536+4096: Bad file descriptor");
  }
}

TEST_F(Files, CreateNewRefusesATakenName) {
  create("data");
  EXPECT_THROW(create("data"), std::system_error);
}

TEST_F(Files, GrowAndShrinkAndPunch) {
  const auto file = create("data");
  EXPECT_TRUE(run(file->allocate(0, 1 << 20)));
  EXPECT_EQ(run(file->size()), 1u << 20);
  EXPECT_GE(run(file->allocated_bytes()), 1u << 20);
  EXPECT_TRUE(run(file->punch_hole(0, 1 << 20)));
  EXPECT_LT(run(file->allocated_bytes()), 1u << 20);
  run(file->truncate(5));
  EXPECT_EQ(run(file->size()), 5u);
  run(file->sync_data());
  run(file->sync());
}

TEST_F(Files, LocksConflictOnlyWithAnotherHoldersExclusiveTest) {
  const auto first = create("data");
  const auto second = run(files().open(path("data"), OpenMode::read_write));
  EXPECT_TRUE(first->lock_byte_shared(100));
  EXPECT_TRUE(second->lock_byte_shared(100)) << "shared locks go together";
  EXPECT_TRUE(first->byte_is_locked_elsewhere(100));
  second->unlock_byte(100);
  EXPECT_FALSE(first->byte_is_locked_elsewhere(100)) << "one's own lock is no conflict";
}

TEST_F(Files, DirectoriesAreMadeListedAndRemoved) {
  run(files().make_directories(path("a/b/c")));
  run(files().make_directories(path("a/b/c")));
  run(files().make_symlink("c", path("a/b/link")));
  std::vector<std::string> names;
  for (const DirectoryEntry& entry : run(files().list(path("a/b")))) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("c", "link"));
  EXPECT_EQ(run(files().status(path("a/b/link"), false))->kind, FileKind::symlink);
  EXPECT_EQ(run(files().status(path("a/b/link"), true))->kind, FileKind::directory);
  EXPECT_EQ(run(files().resolve(path("a/b/link"))), run(files().resolve(path("a/b/c"))));
  EXPECT_FALSE(run(files().status(path("a/x"), true)).has_value());
  run(files().remove_directory(path("a/b/c")));
  EXPECT_GT(run(files().space(path("a"))).available_bytes, 0u);
}

TEST_F(Files, RenameKeepsATakenNameUnlessToldToReplace) {
  run(replace_text(runtime(), path("one"), "1"));
  run(replace_text(runtime(), path("two"), "2"));
  EXPECT_THROW(run(files().rename(path("one"), path("two"), false)), std::system_error);
  run(files().rename(path("one"), path("two"), true));
  EXPECT_EQ(run(read_text(files(), path("two"))), "1");
}

TEST_F(Files, ReplacedTextLeavesNoTemporaryFile) {
  run(replace_text(runtime(), path("row.json"), "{}"));
  run(replace_text(runtime(), path("row.json"), "{\"a\":1}"));
  EXPECT_EQ(run(read_text(files(), path("row.json"))), "{\"a\":1}");
  EXPECT_EQ(run(files().list(directory_)).size(), 1u);
}

/// Six disks of one job publish while an old generation is deleted: each writes the same file.
TEST_F(Files, SeveralReplaceOneTextAtTheSameTime) {
  constexpr int kWriters = 16;
  TaskScope writers;
  const auto replace = [&](int writer) -> Task<void> {
    for (int round = 0; round < 20; ++round) {
      co_await replace_text(runtime(), path("chain.json"), std::string(100, char('a' + writer)));
    }
  };
  const auto all = [&]() -> Task<void> {
    for (int writer = 0; writer < kWriters; ++writer) writers.spawn(replace(writer));
    co_await writers.joined();
  };
  EXPECT_NO_THROW(run(all()));
  const std::string text = run(read_text(files(), path("chain.json")));
  EXPECT_EQ(text, std::string(100, text.front())) << "one of them, whole";
  EXPECT_EQ(run(files().list(directory_)).size(), 1u) << "no temporary file is left";
}

TEST_F(Files, AFailedReplacementLeavesTheOldTextAndNoTemporaryFile) {
  run(files().make_directories(path("row.json/in the way")));
  EXPECT_THROW(run(replace_text(runtime(), path("row.json"), "{}")), std::system_error);
  EXPECT_EQ(run(files().list(directory_)).size(), 1u);
}

TEST_F(Files, WhatACrashLeavesOfAReplacementIsFoundByItsName) {
  run(replace_text(runtime(), path("secrets"), "{}"));
  for (const char* left : {"secrets.0123456789abcdef.new", "secrets.new", "other.new"})
    create(left);
  run(remove_temporaries(files(), path("secrets")));
  std::vector<std::string> names;
  for (const DirectoryEntry& entry : run(files().list(directory_))) names.push_back(entry.name);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("secrets", "other.new"));
}

}  // namespace
}  // namespace io
