// SPDX-License-Identifier: Apache-2.0
// The parts of the path of a block, one by one: build-bench/bench/micro [--benchmark_filter=…]
#include <benchmark/benchmark.h>

#include <vector>

#include "io/buffer.h"
#include "io/ring_thread.h"
#include "nbd/protocol.h"
#include "qcow/format/zero_check.h"
#include "qcow/image/cluster_map.h"

namespace {

constexpr uint32_t kClusterBits = 16;
constexpr size_t kClusterBytes = size_t{1} << kClusterBits;

void request_codec(benchmark::State& state) {
  nbd::Request request;
  request.command = nbd::Command::write;
  request.length = 1 << 20;
  for (auto _ : state) {
    request.offset += request.length;
    const auto wire = request.encode();
    benchmark::DoNotOptimize(nbd::Request::decode(wire));
  }
}
BENCHMARK(request_codec);

void reply_codec(benchmark::State& state) {
  nbd::SimpleReply reply{nbd::WireError::none, 0};
  for (auto _ : state) {
    ++reply.cookie;
    const auto wire = reply.encode();
    benchmark::DoNotOptimize(nbd::SimpleReply::decode(wire));
  }
}
BENCHMARK(reply_codec);

/// What data pays for the detection of zeroes: one cache line a cluster.
void zero_check_of_data(benchmark::State& state) {
  std::vector<std::byte> cluster(kClusterBytes, std::byte{1});
  for (auto _ : state) benchmark::DoNotOptimize(qcow::is_zero(cluster));
}
BENCHMARK(zero_check_of_data);

void zero_check_of_zeroes(benchmark::State& state) {
  std::vector<std::byte> cluster(kClusterBytes);
  for (auto _ : state) benchmark::DoNotOptimize(qcow::is_zero(cluster));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kClusterBytes));
}
BENCHMARK(zero_check_of_zeroes);

/// Look-up and change of one mapping, for each cluster that is written.
void mapping_of_a_cluster(benchmark::State& state) {
  qcow::L2Table table(0, qcow::HostOffset{kClusterBytes}, kClusterBytes, true);
  uint64_t cluster = 0;
  for (auto _ : state) {
    const uint64_t index = cluster++ % (kClusterBytes / 8);
    benchmark::DoNotOptimize(qcow::decode_l2_entry(table.raw(index), kClusterBits, 3));
    const auto host = qcow::HostOffset{(cluster % 1000 + 1) << kClusterBits};
    benchmark::DoNotOptimize(qcow::encode_l2_entry(qcow::Mapping::data_at(host), kClusterBits));
  }
}
BENCHMARK(mapping_of_a_cluster);

void buffer_of_one_mebibyte(benchmark::State& state) {
  io::RingRuntime parts;
  io::BufferPool& pool = parts.runtime().buffers;
  uint64_t phase = 0;
  for (auto _ : state) {
    const io::Buffer buffer = pool.try_acquire(1 << 20, phase += 512);
    benchmark::DoNotOptimize(buffer.data());
  }
}
BENCHMARK(buffer_of_one_mebibyte);

void task_that_ends_at_once(benchmark::State& state) {
  io::RingRuntime parts;
  const auto one = []() -> io::Task<int> { co_return 1; };
  const auto many = [&]() -> io::Task<void> {
    for (auto _ : state) benchmark::DoNotOptimize(co_await one());
  };
  parts.ring().run(many());
}
BENCHMARK(task_that_ends_at_once);

/// Submission, completion and resumption of one operation: a read of 512 bytes that are in memory.
void ring_round_trip(benchmark::State& state) {
  io::RingRuntime parts;
  const auto many = [&]() -> io::Task<void> {
    io::FileSystem& files = parts.runtime().files;
    const std::string program = co_await io::follow_link(files, "/proc/self/exe");
    const auto file = co_await files.open(program, io::OpenMode::read_only);
    std::vector<std::byte> bytes(512);
    for (auto _ : state) co_await file->read(0, bytes);
  };
  parts.ring().run(many());
}
BENCHMARK(ring_round_trip);

}  // namespace

BENCHMARK_MAIN();
