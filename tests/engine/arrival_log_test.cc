// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/arrival_log.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "tests/support/command.h"
#include "tests/support/ring_fixture.h"

namespace engine {
namespace {

constexpr uint32_t kBits = 16;
constexpr uint64_t kCluster = 1 << kBits;
constexpr uint64_t kCapacity = 10 * kCluster + 512;

qcow::Sum sum_like(uint8_t value) {
  qcow::Sum sum;
  sum.fill(std::byte{value});
  return sum;
}

class ArrivalLogs : public support::RingTest {
 protected:
  std::unique_ptr<ArrivalLog> create() {
    return run(ArrivalLog::create(runtime(), path_, uuid_, kBits));
  }
  std::unique_ptr<ArrivalLog> open() {
    return run(ArrivalLog::open(runtime(), path_, uuid_, kBits, kCapacity));
  }

  static ArrivalRecord record(uint64_t cluster, uint64_t count, uint8_t value) {
    ArrivalRecord record;
    record.counters.bytes_received = (cluster + count) * kCluster;
    record.ranges.push_back({cluster * kCluster, count * kCluster});
    for (uint64_t i = 0; i < count; ++i) record.sums.push_back({{cluster + i}, sum_like(value)});
    return record;
  }

  const support::TempDir directory_;
  const std::string path_ = directory_.file("image.qcow2.arrived");
  const qcow::Uuid uuid_ = qcow::uuid_from_text("0199c2f4-7a10-7b61-a3c9-3f0c52d6e7aa");
};

TEST_F(ArrivalLogs, SayWhatWasAppendedAndTheLastSumOfEachCluster) {
  {
    const auto log = create();
    run(log->append(record(0, 4, 1)));
    run(log->append(record(8, 2, 2)));
    ArrivalRecord again = record(3, 1, 3);
    again.sums.push_back({{9}, std::nullopt});
    run(log->append(std::move(again)));
    EXPECT_EQ(run(log->sums_of({3}, 1)).front(), sum_like(3));
  }
  const auto log = open();
  EXPECT_EQ(log->counters().bytes_received, 4 * kCluster);
  const Coverage arrived = log->take_arrived();
  const std::vector<Coverage::Range> wanted = {{0, 4 * kCluster}, {8 * kCluster, 2 * kCluster}};
  EXPECT_EQ(arrived.ranges(), wanted);
  const auto sums = run(log->sums_of({2}, 8));
  EXPECT_EQ(sums[0], sum_like(1));
  EXPECT_EQ(sums[1], sum_like(3));
  EXPECT_EQ(sums[2], std::nullopt);
  EXPECT_EQ(sums[6], sum_like(2));
  EXPECT_EQ(sums[7], std::nullopt) << "forgotten since";
}

TEST_F(ArrivalLogs, OfAnotherImageAreRefused) {
  create().reset();
  const auto other = qcow::uuid_from_text("0199c2f4-7a10-7b61-a3c9-3f0c52d6e7ab");
  EXPECT_THROW(run(ArrivalLog::open(runtime(), path_, other, kBits, kCapacity)),
               std::runtime_error);
  EXPECT_THROW(run(ArrivalLog::open(runtime(), path_, uuid_, kBits + 1, kCapacity)),
               std::runtime_error);
}

TEST_F(ArrivalLogs, CutOffOrDamagedAnywhereEndBeforeThatRecordAndGoOnBehindIt) {
  uint64_t whole = 0;
  {
    const auto log = create();
    run(log->append(record(0, 3, 1)));
    whole = std::filesystem::file_size(path_);
    run(log->append(record(3, 2, 2)));
  }
  const uint64_t size = std::filesystem::file_size(path_);
  std::mt19937 random(1);
  for (int i = 0; i < 60; ++i) {
    const std::string copy = directory_.file("copy");
    std::filesystem::copy_file(path_, copy, std::filesystem::copy_options::overwrite_existing);
    const uint64_t at = whole + random() % (size - whole);
    if (i % 2 == 0) {
      std::filesystem::resize_file(copy, at);
    } else {
      std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(static_cast<std::streamoff>(at));
      const int byte = file.get();
      file.seekp(static_cast<std::streamoff>(at));
      file.put(static_cast<char>(byte ^ (1 << random() % 8)));
    }
    const auto log = run(ArrivalLog::open(runtime(), copy, uuid_, kBits, kCapacity));
    EXPECT_EQ(log->take_arrived().covered_bytes(), 3 * kCluster) << "at " << at;
    EXPECT_EQ(std::filesystem::file_size(copy), whole);
    run(log->append(record(7, 1, 4)));
    const auto again = run(ArrivalLog::open(runtime(), copy, uuid_, kBits, kCapacity));
    EXPECT_EQ(again->take_arrived().covered_bytes(), 4 * kCluster);
    EXPECT_EQ(run(again->sums_of({7}, 1)).front(), sum_like(4));
  }
}

TEST_F(ArrivalLogs, MayWithdrawMoreThanTheDiskHolds) {
  {
    const auto log = create();
    run(log->append(record(0, 3, 1)));
    ArrivalRecord withdrawn;
    withdrawn.withdrawn.push_back({0, 1 << 28});
    run(log->append(withdrawn));
  }
  EXPECT_EQ(open()->take_arrived().covered_bytes(), 0u);
}

TEST_F(ArrivalLogs, EndBeforeTheFirstRecordThatNamesWhatTheDiskDoesNotHave) {
  struct Case {
    const char* what;
    ArrivalRecord record;
  };
  const auto past = [](uint64_t offset, uint64_t length) {
    ArrivalRecord record;
    record.ranges.push_back({offset, length});
    return record;
  };
  ArrivalRecord withdrawn, withdrawn_too_far, sum;
  withdrawn.withdrawn.push_back({kCapacity, 1});
  withdrawn_too_far.withdrawn.push_back({kCluster, UINT64_MAX});
  sum.sums.push_back({{11}, sum_like(9)});
  const std::vector<Case> cases = {
      {"behind the end", past(kCapacity, kCluster)},
      {"over the end", past(10 * kCluster, kCluster)},
      {"beyond all addresses", past(kCluster, UINT64_MAX)},
      {"withdrawn", withdrawn},
      {"withdrawn beyond all addresses", withdrawn_too_far},
      {"a sum", sum},
  };
  for (const Case& one : cases) {
    std::filesystem::remove(path_);
    {
      const auto log = create();
      run(log->append(record(0, 3, 1)));
      run(log->append(past(10 * kCluster, 512)));  // the last bytes of the disk
      run(log->append(one.record));
      run(log->append(record(3, 2, 2)));
    }
    const auto log = open();
    EXPECT_EQ(log->take_arrived().covered_bytes(), 3 * kCluster + 512) << one.what;
  }
}

}  // namespace
}  // namespace engine
