// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/big_endian.h"
#include "io/ring_thread.h"
#include "nbd/session.h"
#include "tests/support/failing_allocations.h"
#include "tests/support/memory_device.h"
#include "tests/support/memory_loop.h"

/// Each allocation of a session fails once: every request is answered, or the connection ends. The
/// client is one that waits for all its answers before it leaves.
namespace nbd {
namespace {

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint32_t kClusterBytes = 4096;
constexpr size_t kRequests = 9;

/// Final replies among the bytes that a server with structured replies has sent.
size_t answers_in(std::span<const std::byte> sent) {
  constexpr size_t kSimpleBytes = 16, kChunkBytes = 20;
  constexpr uint32_t kSimpleMagic = 0x67446698;
  size_t answers = 0;
  while (sent.size() >= kSimpleBytes) {
    if (io::load_be<uint32_t>(sent.data()) == kSimpleMagic) {
      ++answers;
      sent = sent.subspan(kSimpleBytes);
      continue;
    }
    if (sent.size() < kChunkBytes) break;
    const size_t bytes = kChunkBytes + io::load_be<uint32_t>(sent.data() + 16);
    if (sent.size() < bytes) break;
    if ((io::load_be<uint16_t>(sent.data() + 4) & 1) != 0) ++answers;
    sent = sent.subspan(bytes);
  }
  return answers;
}

/// What the client sees at last.
struct Outcome {
  std::vector<std::byte> sent;
  bool aborted = false;
  bool too_late = false;
};

class PatientClient final : public io::Stream {
 public:
  PatientClient(support::MemoryLoop& loop, std::span<const std::byte> script, Outcome& outcome)
      : loop_(loop), script_(script), outcome_(outcome), changed_(loop) {
    // Long after the session itself gives up a client that does nothing.
    patience_ = loop.call_at(loop.now() + std::chrono::hours(1), [this] {
      outcome_.too_late = true;
      changed_.wake();
    });
  }

  io::Task<size_t> receive(std::span<const iovec> into) override {
    while (script_.empty() && !over()) co_await changed_.wait();
    if (outcome_.aborted) co_return 0;
    size_t count = 0;
    for (const iovec& room : into) {
      const size_t part = std::min(room.iov_len, script_.size());
      if (part > 0) std::memcpy(room.iov_base, script_.data(), part);
      script_ = script_.subspan(part);
      count += part;
    }
    co_return count;
  }
  io::Task<void> send(std::span<const iovec> from) override {
    co_await io::NextTurn{loop_};
    if (outcome_.aborted) throw std::system_error(EPIPE, std::generic_category(), "send");
    for (const iovec& piece : from) {
      const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
      outcome_.sent.insert(outcome_.sent.end(), bytes, bytes + piece.iov_len);
    }
    changed_.wake();
  }
  io::Task<void> finish_sending() override { co_return; }
  void abort() noexcept override {
    outcome_.aborted = true;
    changed_.wake();
  }
  bool has_arrived() const override { return !script_.empty(); }
  std::string peer() const override { return "client"; }

 private:
  bool over() const {
    return outcome_.aborted || outcome_.too_late || answers_in(outcome_.sent) == kRequests;
  }
  support::MemoryLoop& loop_;
  std::span<const std::byte> script_;
  Outcome& outcome_;
  io::Event changed_;
  std::unique_ptr<io::Clock::Alarm> patience_;
};

/// A request of each kind.
Bytes script() {
  Bytes all;
  const auto add = [&](Command command, uint64_t offset, uint64_t length, uint16_t flags,
                       size_t payload_bytes) {
    const auto wire = Request{flags, command, all.size(), offset, length}.encode();
    all.insert(all.end(), wire.begin(), wire.end());
    all.resize(all.size() + payload_bytes, std::byte{7});
  };
  add(Command::write, 4096, 20000, 0, 20000);
  add(Command::write, 100, 5000, kFlagFua, 5000);
  add(Command::read, 0, 65536, 0, 0);
  add(Command::read, 0, 65536, kFlagDf, 0);
  add(Command::write_zeroes, 8192, 8192, 0, 0);
  add(Command::trim, 16384, 4096, 0, 0);
  add(Command::block_status, 0, kDiskBytes, 0, 0);
  add(Command::read, kDiskBytes, 4096, 0, 0);  // refused
  add(Command::flush, 0, 0, 0, 0);
  return all;
}

class SessionAllocation : public ::testing::Test {
 protected:
  /// False when there were fewer allocations.
  bool run_with_victim(uint64_t victim) {
    support::MemoryLoop loop;
    io::BufferPool buffers{loop, 256 << 20};
    support::MemoryDevice disk{kDiskBytes, kClusterBytes};
    const io::Runtime there = outside_.runtime();
    ExportSpec spec{.name = "disk"};
    const auto exported =
        Export::make(std::move(spec), disk, {loop, loop, there.files, buffers, there.random});
    Outcome outcome;
    support::FailingAllocations allocations(victim);
    loop.run(serve(loop, exported, outcome, allocations));
    EXPECT_FALSE(outcome.too_late) << "allocation " << victim << ": an answer never came";
    if (!outcome.aborted) {
      EXPECT_EQ(answers_in(outcome.sent), kRequests) << victim;
    }
    EXPECT_TRUE(!outcome.aborted || allocations.failed()) << victim;
    EXPECT_EQ(exported->counters().in_flight_bytes, 0u) << victim;
    EXPECT_EQ(exported->counters().connections_now, 0u) << victim;
    EXPECT_EQ(buffers.bytes_in_use(), 0u) << victim;
    loop.run(exported->join());
    return allocations.failed();
  }

  io::Task<void> serve(support::MemoryLoop& loop, std::shared_ptr<Export> exported,
                       Outcome& outcome, support::FailingAllocations& allocations) {
    outcome.sent.reserve(1 << 20);
    auto place = exported->connect();
    Negotiated negotiated{AdmissionSlot(admission_),
                          std::get<ConnectionPlace>(std::move(place)),
                          Negotiation{true, false, true},
                          {{1, 0}, {2, 1}}};
    auto client = std::make_unique<PatientClient>(loop, script_, outcome);
    Session session(std::move(client), std::move(negotiated), {});
    io::Task<void> serving = session.serve();
    allocations.arm(true);
    co_await std::move(serving);
    allocations.arm(false);
  }

  io::RingRuntime outside_;  // for its files and random numbers, which nobody uses
  Admission admission_;
  const Bytes script_ = script();
};

TEST_F(SessionAllocation, EachOneFailsOnceAndEveryRequestIsAnsweredOrTheConnectionEnds) {
  uint64_t failures = 0;
  for (uint64_t victim = 0; run_with_victim(victim); ++victim) {
    ++failures;
    if (HasFailure()) return;
  }
  EXPECT_GT(failures, 100u);
  std::printf("%llu allocations failed\n", static_cast<unsigned long long>(failures));
}

}  // namespace
}  // namespace nbd
