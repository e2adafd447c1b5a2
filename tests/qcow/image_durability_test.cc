#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "io/task_scope.h"
#include "qcow/check/check.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;

constexpr uint64_t kCluster = 65536;

int error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::system_error& error) {
    return error.code().value();
  }
  return 0;
}

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
  options.allocate_step_bytes = 4 << 20;
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

/// A file on a file system with little room: which of its blocks have space, and how much is left.
/// As ext4 does, an allocation that does not fit takes what there is.
class SmallFileSystem {
 public:
  uint64_t blocks_left = UINT64_MAX;

  int judge(const support::FileCall& call) {
    const uint64_t first = call.offset / kBlock;
    const uint64_t end = (call.offset + call.length + kBlock - 1) / kBlock;
    if (call.verb == "write" || call.verb == "allocate") return take(first, end);
    if (call.verb == "truncate") give_back(first, blocks_.size());
    if (call.verb == "punch") give_back(first, end);
    return 0;
  }

 private:
  static constexpr uint64_t kBlock = 4096;

  int take(uint64_t first, uint64_t end) {
    if (blocks_.size() < end) blocks_.resize(end);
    for (uint64_t block = first; block < end; ++block) {
      if (blocks_[block]) continue;
      if (blocks_left == 0) return ENOSPC;
      blocks_[block] = true;
      --blocks_left;
    }
    return 0;
  }
  void give_back(uint64_t first, uint64_t end) {
    for (uint64_t block = first; block < std::min<uint64_t>(end, blocks_.size()); ++block) {
      if (blocks_[block]) ++blocks_left;
      blocks_[block] = false;
    }
  }

  std::vector<bool> blocks_;
};

/// Images on a file system that has become full.
class ImageWithoutRoom : public ImageFailures {
 protected:
  ImageWithoutRoom() {
    faults_.fail = [this](const support::FileCall& call) { return small_.judge(call); };
    options_.commit_interval = std::chrono::hours(1);
  }

  void set_room(uint64_t bytes) { small_.blocks_left = bytes / 4096; }

  /// Writes pieces from `at` on until one is refused; returns how many bytes were accepted.
  uint64_t write_until_refused(uint64_t at, uint64_t piece) {
    const uint64_t from = at;
    for (; at + piece <= model_.size(); at += piece) {
      const Bytes before(model_.begin() + static_cast<ptrdiff_t>(at),
                         model_.begin() + static_cast<ptrdiff_t>(at + piece));
      const int error = error_of([&] { write(at, Bytes(piece, std::byte{3})); });
      if (error == 0) continue;
      EXPECT_EQ(error, ENOSPC);
      std::copy(before.begin(), before.end(), model_.begin() + static_cast<ptrdiff_t>(at));
      return at - from;
    }
    ADD_FAILURE() << "never refused";
    return at - from;
  }

  /// Nothing is lost, and when there is room again it goes on.
  void expect_as_good_as_ever() {
    flush();
    EXPECT_EQ(image_->failure(), nullptr);
    expect_reads_as_model();
    small_.blocks_left = UINT64_MAX;
    write_random(0, kCluster);
    flush();
    write_random(kCluster, model_.size() / 2);
    close();
    expect_valid("a.qcow2");
  }

  SmallFileSystem small_;
  ImageOptions options_;
};

TEST_F(ImageWithoutRoom, RefusesWhatWouldGoIntoTheHolesOfClustersThatWereDiscardedBeforeARestart) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(48 << 20, std::byte{1}));
  flush();
  discard(1 << 20, 40 << 20);
  close();
  set_room(3 << 20);
  open("a.qcow2", options_);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, UsesThoseHolesFirstAndGivesTheSpaceOfTheOthersBackAtTheEnd) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(48 << 20, std::byte{1}));
  flush();
  discard(1 << 20, 40 << 20);
  close();
  const uint64_t length = qcow_test::file_bytes(file("a.qcow2"));
  set_room(1 << 30);
  open("a.qcow2", options_);
  write(1 << 20, Bytes(8 << 20, std::byte{2}));
  flush();
  write(9 << 20, Bytes(8 << 20, std::byte{2}));
  close();
  EXPECT_EQ(qcow_test::file_bytes(file("a.qcow2")), length);
  EXPECT_EQ(small_.blocks_left, ((1u << 30) - (16u << 20)) / 4096);
  expect_valid("a.qcow2");
}

TEST_F(ImageWithoutRoom, RefusesWhatWouldGoIntoASparseTailOfTheFile) {
  create("a.qcow2", {.size = 64 << 20});
  open("a.qcow2", options_);
  write(0, Bytes(1 << 20, std::byte{1}));
  close();
  std::filesystem::resize_file(file("a.qcow2"), 48 << 20);
  set_room(3 << 20);
  open("a.qcow2", options_);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, HasRoomForTheManyRefcountBlocksOfSmallClusters) {
  create("a.qcow2", {.size = 8 << 20, .cluster_bits = 9, .refcount_order = 6});
  options_.allocate_step_bytes = 2 << 20;
  options_.refcount_cover_bytes = 4 << 20;
  options_.commit_bytes = 2 << 20;
  open("a.qcow2", options_);
  write(0, Bytes(1 << 20, std::byte{1}));
  flush();
  set_room(0);
  EXPECT_GE(write_until_refused(1 << 20, 8192), 512u << 10);
  expect_as_good_as_ever();
}

TEST_F(ImageWithoutRoom, AsksForSpaceAgainAfterAnAttemptThatFailedForAnotherReason) {
  create("a.qcow2", {.size = 64 << 20});
  options_.allocate_step_bytes = 1 << 20;
  open("a.qcow2", options_);
  faults_.fail = [](const support::FileCall& call) { return call.verb == "allocate" ? EIO : 0; };
  write(0, Bytes(kCluster, std::byte{1}));
  faults_.fail = [this](const support::FileCall& call) { return small_.judge(call); };
  write(kCluster, Bytes(kCluster, std::byte{1}));
  flush();
  set_room(3 << 20);
  EXPECT_GE(write_until_refused(1 << 20, kCluster), 1u << 20);
  expect_as_good_as_ever();
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

class ImageSeal : public qcow_test::ImageModel {};

TEST_F(ImageSeal, RefusesWritesAndGoesOnReading) {  // D7, PU1
  create("a.qcow2", {.size = 2 << 20});
  open("a.qcow2");
  write_random(1000, 1 << 20);
  const SealedImage sealed = run(image_->seal());
  EXPECT_EQ(sealed.file_bytes, qcow_test::file_bytes(file("a.qcow2")));
  EXPECT_EQ(error_of([&] { write(0, Bytes(1)); }), EPERM);
  model_[0] = std::byte{0};
  EXPECT_EQ(error_of([&] { discard(0, 1); }), EPERM);
  flush();
  expect_reads_as_model();
  Sha256 hash{};
  hash[5] = std::byte{42};
  run(image_->publish_header(hash, 1'700'000'000));
  run(image_->publish_header(hash, 1'700'000'000));
  close();
  expect_valid("a.qcow2");
  const Header published = header("a.qcow2");
  EXPECT_TRUE(published.sealed());
  ASSERT_TRUE(published.record);
  EXPECT_TRUE(published.record->published());
  EXPECT_EQ(published.record->manifest_hash, hash);
  EXPECT_EQ(published.record->publish_time, 1'700'000'000u);
  EXPECT_NE(qcow_test::refusal_of([&] { open("a.qcow2"); }), "(not refused)");
}

TEST_F(ImageSeal, APublishedImageWhoseSealBitAnotherProgramHasClearedIsNotOpenedForWriting) {
  create("a.qcow2", {.size = 2 << 20});
  open("a.qcow2");
  write_random(0, 1 << 20);
  run(image_->seal());
  run(image_->publish_header(Sha256{}, 1'700'000'000));
  close();
  const auto repaired = support::run_command("qemu-img check -r all " + file("a.qcow2"));
  ASSERT_TRUE(repaired.ok()) << repaired.output;
  ASSERT_FALSE(header("a.qcow2").sealed());
  EXPECT_NE(qcow_test::refusal_of([&] { open("a.qcow2"); }).find("is a published restore point"),
            std::string::npos);
}

TEST_F(ImageSeal, WaitsForWritesUnderWay) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(50'000));  // the next ones find space in the file, and are under way at once
  auto both = [&](io::TaskScope& scope) -> io::Task<void> {
    for (int i = 0; i < 16; ++i) {
      scope.spawn(write_task(static_cast<uint64_t>(i) * 100'000, Bytes(50'000, std::byte{3})));
    }
    co_await image_->seal();
  };
  run(io::run_scoped(both));
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageSeal, FlushesShareACommit) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(1 << 20, std::byte{1}));
  auto many = [&](io::TaskScope& scope) -> io::Task<void> {
    for (int i = 0; i < 20; ++i) scope.spawn(image_->flush());
    co_return;
  };
  run(io::run_scoped(many));
  EXPECT_LE(image_->counters().commits, 2u);
  const uint64_t commits = image_->counters().commits;
  flush();
  EXPECT_EQ(image_->counters().commits, commits) << "nothing changed, nothing written";
  close();
}

TEST_F(ImageSeal, AbandonedImagesStopAtOnce) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(1 << 20, std::byte{1}));
  run(image_->abandon());
  EXPECT_EQ(error_of([&] { write(0, Bytes(1)); }), ECANCELED);
  image_.reset();
  EXPECT_EQ(run(qcow::check(runtime(), file("a.qcow2"), CheckOptions())).corruptions, 0u);
}

class ImageRecovery : public qcow_test::ImageModel {};

TEST_F(ImageRecovery, OfAnImageWithTwoOwnersOfOneClusterMarksItCorruptAndRefuses) {  // FB2, DU9
  create("a.qcow2", {.size = 1 << 20});
  open("a.qcow2");
  write_random(0, 128 << 10);
  close();
  const std::string path = file("a.qcow2");
  constexpr uint64_t kL1Field = 40, kOffsetBits = 0x00fffffffffffe00;
  const auto l1_table = qcow_test::peek_be<uint64_t>(path, kL1Field);
  const uint64_t l2_table = qcow_test::peek_be<uint64_t>(path, l1_table) & kOffsetBits;
  qcow_test::patch_be<uint64_t>(path, l2_table + 8, qcow_test::peek_be<uint64_t>(path, l2_table));
  EXPECT_EQ(qcow_test::refusal_of([&] { open("a.qcow2"); }),
            "\"a.qcow2\": two owners of one host cluster; marked corrupt");
  EXPECT_EQ(qcow_test::peek_be<uint64_t>(path, 72), 2u);
  EXPECT_NE(support::run_command("qemu-img check " + path).output.find("refcount=1 reference=2"),
            std::string::npos);
}

}  // namespace
}  // namespace qcow
