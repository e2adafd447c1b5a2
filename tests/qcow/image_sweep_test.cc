#include "tests/qcow/image_sweep.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "qcow/check.h"
#include "qcow/create.h"
#include "tests/support/faulty_file_system.h"
#include "tests/support/ring_fault_fixture.h"

/// Every I/O fails once: what was flushed reads back, the error has its number and its text,
/// nothing is left open. A sample by default; all of it with VARVE_LONG.
namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::ScriptResult;
using qcow_test::SectorVersions;

constexpr size_t kSteps = 500;
constexpr uint64_t kSeed = 4711;

struct SweepShape {
  const char* name;
  uint64_t disk_bytes;
  uint32_t cluster_bits;
  uint32_t refcount_order;
  bool overlay;
};

/// Tables that grow all the time, and an overlay whose partial clusters are filled from a parent.
constexpr SweepShape kShapes[] = {{"GrowingTables", 256 << 10, 9, 6, false},
                                  {"Overlay", 512 << 10, 12, 4, true}};

size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

bool is_long() { return std::getenv("VARVE_LONG") != nullptr; }

class Sweep : public qcow_test::ImageFiles, public ::testing::WithParamInterface<SweepShape> {
 protected:
  void SetUp() override {
    script_ = qcow_test::make_script(kSeed, kSteps, GetParam().disk_bytes);
    base_.resize(GetParam().disk_bytes);
    if (!GetParam().overlay) return;
    CreateOptions parent;
    parent.virtual_size = GetParam().disk_bytes;
    parent.image_uuid[0] = std::byte{7};
    run(create(runtime(), file("parent.qcow2"), parent));
    auto image = run(Image::open(runtime(), file("parent.qcow2"), ImageOptions()));
    base_ = qcow_test::random_bytes(random_, base_.size());
    io::Buffer buffer = runtime().buffers.try_acquire(base_.size());
    std::copy(base_.begin(), base_.end(), buffer.data());
    run(image->write(0, std::move(buffer)));
    run(image->close());
  }

  void fresh_image() {
    std::filesystem::remove(file("a.qcow2"));
    CreateOptions options;
    options.virtual_size = GetParam().disk_bytes;
    options.cluster_bits = GetParam().cluster_bits;
    options.refcount_order = GetParam().refcount_order;
    options.image_uuid[0] = std::byte{1};
    if (GetParam().overlay) {
      options.parent = NewParent{.name = "parent.qcow2"};
      options.parent->uuid[0] = std::byte{7};
    }
    run(create(runtime(), file("a.qcow2"), options));
  }

  static ImageOptions image_options() {
    ImageOptions options;
    options.commit_interval = std::chrono::hours(1);  // the same calls each time
    options.commit_bytes = 100'000;
    options.refcount_cover_bytes = 200'000;
    return options;
  }

  /// Opens, runs the script and seals.
  ScriptResult run_all(io::Runtime with, const qcow_test::Around& around) {
    ScriptResult result{SectorVersions(base_), nullptr, "", 0};
    std::unique_ptr<Image> image;
    const std::string path = file("a.qcow2");
    const auto try_step = [&](const char* name, const std::function<void()>& step) {
      around(true);
      try {
        step();
      } catch (...) {
        result.failure = std::current_exception();
      }
      around(false);
      if (result.failure) result.step = name;
    };
    try_step("open", [&] { image = run(Image::open(with, path, image_options())); });
    if (!image) return result;
    run(qcow_test::run_script(with, *image, script_, around, result));
    if (!result.failure) {
      try_step("seal", [&] { run(image->seal()); });
      if (!result.failure) result.versions.flushed();
    }
    expect_final(*image, result);
    run(image->abandon());
    return result;
  }

  /// What failed once stays failed, with the first cause.
  void expect_final(Image& image, const ScriptResult& result) {
    if (!result.failure || !image.failure()) return;
    const std::string first = text_of(image.failure());
    try {
      run(image.flush());
      ADD_FAILURE() << "a flush succeeded after " << first;
    } catch (const std::exception& again) {
      EXPECT_EQ(again.what(), first);
    }
  }

  static std::string text_of(const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& cause) {
      return cause.what();
    }
  }

  /// The promise, with the file as it is now and nothing failing any more.
  void expect_promise(const ScriptResult& result, const std::string& where) {
    const CheckResult found = run(check(runtime(), file("a.qcow2"), CheckOptions()));
    EXPECT_EQ(found.corruptions, 0u) << where << ": " << found.findings.front();
    EXPECT_EQ(found.shared_clusters, 0u) << where;
    if (!result.failure) {
      EXPECT_TRUE(found.clean()) << where;
    }
    const auto chain = run(Chain::open(runtime(), file("a.qcow2"), ChainOptions()));
    Bytes disk(base_.size());
    run(chain->read(0, disk));
    EXPECT_EQ(result.versions.judge(disk), "") << where << ", after " << result.step;
    if (result.failure) return;
    EXPECT_EQ(disk, result.versions.newest()) << where;
  }

  std::vector<qcow_test::Step> script_;
  Bytes base_;
};

class FileSweep : public Sweep {
 protected:
  /// Runs everything with the `victim`-th call failing; which one it was, or "" when none was.
  std::string run_with_victim(size_t victim, int error) {
    fresh_image();
    const size_t descriptors = open_descriptors();
    support::FileFaults faults;
    support::FaultyFileSystem files(runtime().files, faults);
    const io::Runtime real = runtime();
    const io::Runtime with{real.executor, real.clock, files, real.buffers, real.random};
    std::string failed;
    size_t calls = 0;
    const ScriptResult result = run_all(with, [&](bool armed) {
      faults.fail = nullptr;
      if (!armed) return;
      faults.fail = [&](const support::FileCall& call) {
        if (calls++ != victim) return 0;
        failed = call.verb;
        return error;
      };
    });
    calls_ = calls;
    const std::string where =
        fmt::format("{} {} (error {}), {}", victim, failed, error, result.step);
    if (!failed.empty()) expect_error(result, failed, error, where);
    expect_promise(result, where);
    EXPECT_EQ(open_descriptors(), descriptors) << where;
    return failed;
  }

  void expect_error(const ScriptResult& result, const std::string& verb, int error,
                    const std::string& where) {
    // Allocating ahead is never needed; a read may have been a step's own.
    if (!result.failure) {
      EXPECT_TRUE(verb == "allocate" || verb == "read" || verb == "punch") << where;
      return;
    }
    try {
      std::rethrow_exception(result.failure);
    } catch (const std::system_error& failure) {
      EXPECT_EQ(failure.code().value(), error) << where << ": " << failure.what();
      EXPECT_NE(std::string(failure.what()).find(verb), std::string::npos) << failure.what();
      EXPECT_NE(std::string(failure.what()).find("a.qcow2"), std::string::npos) << failure.what();
    } catch (const std::exception& failure) {
      ADD_FAILURE() << where << ": " << failure.what();
    }
  }

  size_t calls_ = 0;
};

TEST_P(FileSweep, EachCallFailsOnceWithEachErrorAndThePromiseHolds) {
  run_with_victim(SIZE_MAX, EIO);
  const size_t calls = calls_;
  EXPECT_GT(calls, 500u);
  size_t failures = 0;
  const size_t stride = is_long() ? 1 : std::max<size_t>(calls / 25, 1);
  size_t offset = 0;
  for (const int error : {EIO, ENOSPC, EDQUOT, ECANCELED}) {
    // Each error takes its own calls, so that together they meet many.
    for (size_t victim = offset++ * stride / 4; victim < calls; victim += stride) {
      failures += !run_with_victim(victim, error).empty();
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(failures, calls / stride * 3);
  std::printf("%zu of %zu calls failed\n", failures, calls);
}

class KernelSweep : public Sweep {
 protected:
  ~KernelSweep() override { support::set_ring_faults(nullptr); }
};

TEST_P(KernelSweep, ShortCountsAndPassingTroubleAreNobodysBusiness) {
  const int rounds = is_long() ? 100 : 3;
  for (int round = 0; round < rounds; ++round) {
    fresh_image();
    std::mt19937_64 dice(static_cast<uint64_t>(round));
    size_t met = 0;
    support::RingFaults faults;
    faults.cut = [&](const io_uring_sqe&) { return dice() % 2 == 0 && ++met > 0; };
    faults.result = [&](const io_uring_sqe& entry) -> std::optional<int32_t> {
      if (dice() % 8 != 0) return std::nullopt;
      ++met;
      return entry.opcode == IORING_OP_FSYNC || dice() % 2 == 0 ? -EINTR : -EAGAIN;
    };
    const ScriptResult result = run_all(
        runtime(), [&](bool armed) { support::set_ring_faults(armed ? &faults : nullptr); });
    EXPECT_EQ(result.failure, nullptr) << text_of(result.failure) << " in " << result.step;
    EXPECT_EQ(result.failed_reads, 0u);
    EXPECT_GT(met, 100u);
    expect_promise(result, fmt::format("round {}", round));
  }
}

std::string name_of(const ::testing::TestParamInfo<SweepShape>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Shapes, FileSweep, ::testing::ValuesIn(kShapes), name_of);
INSTANTIATE_TEST_SUITE_P(Shapes, KernelSweep, ::testing::ValuesIn(kShapes), name_of);

}  // namespace
}  // namespace qcow
