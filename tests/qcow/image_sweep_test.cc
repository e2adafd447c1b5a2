// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/image_sweep_fixture.h"

#include <fmt/format.h>

#include "tests/support/faulty_file_system.h"
#include "tests/support/ring_fault_fixture.h"

/// Every I/O fails once: what was flushed reads back, the error has its number and its text,
/// nothing is left open. A sample by default; all of it with VARVE_LONG.
namespace qcow {
namespace {

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

INSTANTIATE_TEST_SUITE_P(Shapes, FileSweep, ::testing::ValuesIn(kShapes), name_of);
INSTANTIATE_TEST_SUITE_P(Shapes, KernelSweep, ::testing::ValuesIn(kShapes), name_of);

}  // namespace
}  // namespace qcow
