// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "qcow/check/check.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

/// Images whose file fails (X9).
class ImageFailures : public qcow_test::ImageModel {
 protected:
  void expect_final(int error) {
    EXPECT_EQ(error_of([&] { flush(); }), error);
    EXPECT_EQ(error_of([&] { write(0, Bytes(512, std::byte{1})); }), error);
    EXPECT_EQ(error_of([&] { zero(0, kCluster); }), error);
    EXPECT_EQ(error_of([&] { run(image_->seal()); }), error);
    ASSERT_NE(image_->failure(), nullptr);
    EXPECT_EQ(error_of([&] { std::rethrow_exception(image_->failure()); }), error);
    EXPECT_EQ(error_of([&] { close(); }), error);
    image_.reset();
  }
  void fail_from_now(std::string verb, int error, uint64_t offset_min = 0) {
    faults_.fail = [=](const support::FileCall& call) {
      return call.verb == verb && call.offset >= offset_min ? error : 0;
    };
  }
};

TEST_F(ImageFailures, OfADataWriteIsFinal) {
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  fail_from_now("write", ENOSPC);
  write(0, Bytes(kCluster, std::byte{1}));  // accepted: the failure comes later
  EXPECT_EQ(error_of([&] { flush(); }), ENOSPC);
  faults_.fail = {};
  expect_final(ENOSPC);
  EXPECT_NE(check("a.qcow2").find("No errors were found"), std::string::npos);
}

TEST_F(ImageFailures, OfASyncIsFinalAndNeverRetried) {  // DU7
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  write(0, Bytes(kCluster, std::byte{1}));
  fail_from_now("sync", EIO);
  EXPECT_EQ(error_of([&] { flush(); }), EIO);
  faults_.fail = {};
  expect_final(EIO);
}

TEST_F(ImageFailures, OfASyncEndReadsTooBecauseBytesThatWereAcceptedMayBeGoneFromTheFile) {
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  write(0, Bytes(kCluster, std::byte{1}));
  fail_from_now("sync", EIO);
  EXPECT_EQ(error_of([&] { flush(); }), EIO);
  faults_.fail = {};
  EXPECT_EQ(error_of([&] { read(0, kCluster); }), EIO);
  EXPECT_EQ(error_of([&] { read(4 << 20, kCluster); }), EIO);
  expect_final(EIO);
}

TEST_F(ImageFailures, OfMetadataIsFoundInTheBackground) {
  create("a.qcow2", {.size = 8 << 20});
  ImageOptions options;
  options.commit_interval = std::chrono::milliseconds(5);
  open("a.qcow2", options);
  write(0, Bytes(kCluster, std::byte{1}));
  fail_from_now("sync", EDQUOT);
  for (int i = 0; i < 200 && !image_->failure(); ++i) {
    run(io::sleep(ring(), runtime().clock, std::chrono::milliseconds(5)));
  }
  expect_final(EDQUOT);
}

/// As a full file system does: no allocation, and no write into what is not allocated.
TEST_F(ImageFailures, AFullFileSystemRefusesWhatIsNewAndNothingElse) {
  create("a.qcow2", {.size = 64 << 20});
  ImageOptions options;
  options.tuning.allocate_step_bytes = 4 << 20;
  uint64_t allocated = 0;
  bool full = false;
  faults_.resized = [&](uint64_t size) { allocated = size; };
  faults_.fail = [&](const support::FileCall& call) {
    if (call.verb == "allocate" && full) return ENOSPC;
    return call.verb == "write" && full && call.offset + call.length > allocated ? ENOSPC : 0;
  };
  open("a.qcow2", options);
  write_random(0, 9 << 20);
  full = true;
  uint64_t at = 16 << 20;
  const Bytes before = model_;
  for (; at < 48 << 20; at += kCluster) {
    if (error_of([&] { write(at, Bytes(kCluster, std::byte{1})); }) != 0) break;
  }
  ASSERT_LT(at, 48u << 20) << "never refused";
  std::copy_n(before.begin() + static_cast<ptrdiff_t>(at), kCluster,
              model_.begin() + static_cast<ptrdiff_t>(at));
  for (int again = 0; again < 3; ++again) {
    try {
      run(image_->write_zeroes(at + 100, 512, io::ZeroMode::may_unmap));
      io::Buffer buffer = run(runtime().buffers.acquire(kCluster));
      std::fill_n(buffer.data(), kCluster, std::byte{2});
      run(image_->write(at, std::move(buffer)));
      ADD_FAILURE() << "not refused";
    } catch (const std::system_error& failure) {
      EXPECT_EQ(failure.code().value(), ENOSPC);
      EXPECT_NE(std::string(failure.what()).find("a.qcow2"), std::string::npos) << failure.what();
    }
  }
  EXPECT_EQ(image_->failure(), nullptr) << "nothing that was accepted is lost";
  flush();
  expect_reads_as_model();
  full = false;
  write_random(at, 4 << 20);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageFailures, AFullFileSystemIsFinalForAnIngest) {
  create("a.qcow2", {.size = 64 << 20});
  ImageOptions options;
  options.full_is_final = true;
  open("a.qcow2", options);
  fail_from_now("allocate", ENOSPC);
  EXPECT_EQ(error_of([&] { write(0, Bytes(kCluster, std::byte{1})); }), ENOSPC);
  faults_.fail = {};
  expect_final(ENOSPC);
}

TEST_F(ImageFailures, LeaveEverythingReadableButWhatTheyLost) {
  create("a.qcow2", {.size = 8 << 20});
  ImageOptions options;
  options.commit_interval = std::chrono::hours(1);
  open("a.qcow2", options);
  write_random(0, 2 << 20);
  flush();
  write(4 << 20, Bytes(1000, std::byte{5}));  // waits in memory
  const Bytes before = model_;
  fail_from_now("write", EIO);
  write((2 << 20) - kCluster, Bytes(2 * kCluster, std::byte{1}));  // in place, and in a new one
  EXPECT_EQ(error_of([&] { flush(); }), EIO);
  model_ = before;
  for (uint64_t at = 0; at < 8 << 20; at += kCluster) {
    Bytes got;
    const int error = error_of([&] { got = read(at, kCluster); });
    if (at == (2 << 20) - kCluster || at == 2 << 20) {
      EXPECT_EQ(error, EIO) << at;
    } else {
      EXPECT_EQ(error, 0) << at;
      EXPECT_TRUE(std::equal(got.begin(), got.end(), model_.begin() + static_cast<ptrdiff_t>(at)))
          << at;
    }
  }
  faults_.fail = {};
  expect_final(EIO);
}

TEST_F(ImageFailures, OfAllocatingAheadIsNone) {
  create("a.qcow2", {.size = 8 << 20});
  open("a.qcow2");
  fail_from_now("allocate", EIO);
  write(0, Bytes(8 << 20, std::byte{1}));
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageFailures, AreToldAtOnceThoughNobodyAsks) {
  create("a.qcow2", {.size = 8 << 20});
  ImageOptions options;
  options.commit_interval = std::chrono::milliseconds(5);
  std::vector<int> told;
  options.on_failure = [&](const std::exception_ptr& cause) {
    told.push_back(error_of([&] { std::rethrow_exception(cause); }));
  };
  open("a.qcow2", options);
  write(0, Bytes(kCluster, std::byte{1}));
  fail_from_now("write", EROFS);
  for (int i = 0; i < 200 && told.empty(); ++i) {
    run(io::sleep(ring(), runtime().clock, std::chrono::milliseconds(5)));
  }
  expect_final(EROFS);
  EXPECT_EQ(told, std::vector<int>{EROFS});
}

TEST_F(ImageFailures, OfAFileThatAnotherProgramCutsAreFoundByTheNextCommit) {
  create("a.qcow2", {.size = 8 << 20});
  ImageOptions options;
  options.commit_interval = std::chrono::hours(1);
  open("a.qcow2", options);
  write(0, Bytes(4 << 20, std::byte{1}));
  flush();
  std::filesystem::resize_file(file("a.qcow2"), 1 << 20);
  write(6 << 20, Bytes(kCluster, std::byte{2}));
  try {
    flush();
    ADD_FAILURE() << "not noticed";
  } catch (const std::system_error& failure) {
    EXPECT_NE(std::string(failure.what()).find("truncated by another program"), std::string::npos);
  }
  expect_final(EIO);
}

TEST_F(ImageFailures, AtEveryCallOnceNeverHarmTheImage) {
  for (const int error : {EIO, ENOSPC}) {
    for (int victim = 0;; ++victim) {
      const std::string name = fmt::format("{}-{}.qcow2", error, victim);
      faults_.fail = {};
      create(name, {.size = 1 << 20, .cluster_bits = 12});
      int calls = 0;
      faults_.fail = [&](const support::FileCall& call) {
        return call.verb != "read" && call.verb != "allocate" && calls++ == victim ? error : 0;
      };
      bool failed = false;
      try {
        open(name);
        write_random(100, 200'000);
        flush();
        zero(5000, 100'000);
        write_random(6000, 50'000);
        flush();
        run(image_->seal());
        close();
      } catch (const std::system_error& failure) {
        failed = true;
        EXPECT_EQ(failure.code().value(), error);
      }
      if (image_) run(image_->abandon());
      image_.reset();
      faults_.fail = {};
      const CheckResult result = run(qcow::check(runtime(), file(name), CheckOptions()));
      EXPECT_EQ(result.corruptions, 0u) << name << " call " << victim;
      EXPECT_EQ(result.shared_clusters, 0u);
      if (!failed) {
        EXPECT_GT(victim, 10);
        EXPECT_TRUE(result.clean());
        break;
      }
    }
  }
}

}  // namespace
}  // namespace qcow
