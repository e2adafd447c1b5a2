// SPDX-License-Identifier: Apache-2.0
// A load generator for NBD servers, built on nbd::Client: a number of connections, each with a
// number of requests in flight and a thread of its own, ended by FLUSH; or one that reads.
//
// Payload comes from a pool of random bytes that was touched before the clock starts. Prints one
// line of JSON: bytes, seconds from the first request to the reply of the FLUSH, and the requests'
// latencies in microseconds. scripts/bench drives it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <exception>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include "app/options.h"
#include "bench/patterns.h"
#include "io/address.h"
#include "io/big_endian.h"
#include "io/ring_thread.h"
#include "io/socket.h"
#include "nbd/client.h"

namespace {

using Clock = std::chrono::steady_clock;

/// Where the server is: a Unix socket, or HOST:PORT when that is empty.
struct Server {
  std::string unix_path, tcp, export_name;
};

struct LoadOptions {
  Server server;
  std::string pattern = "sequential";
  uint64_t block = 256 << 10, bytes = uint64_t{4} << 30;
  unsigned depth = 16, connections = 1;
  uint64_t rate = 0;  // bytes a second in all; 0: as fast as it goes
  uint64_t seed = 1;
  bool zeroes = false, reads = false;
  std::string status;  // a metadata context: its BLOCK_STATUS is asked for, and nothing else
};

/// Random bytes, more than any cache holds, touched before the clock starts.
std::vector<std::byte> random_pool(uint64_t seed) {
  std::vector<std::byte> pool(size_t{128} << 20);
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < pool.size(); at += 8) io::store_be(&pool[at], random());
  return pool;
}

io::Task<std::unique_ptr<io::Socket>> connect(io::Ring& ring, Server server) {
  if (!server.unix_path.empty()) co_return co_await io::connect_unix(ring, server.unix_path);
  const io::HostPort tcp = io::parse_host_port(server.tcp);
  co_return co_await io::connect_tcp(ring, tcp.host, tcp.port);
}

/// One connection's share of the requests, on a thread of its own: `depth` coroutines take the next
/// request each, and wait for its answer.
class Worker {
 public:
  Worker(const LoadOptions& options, std::span<const std::byte> pool)
      : options_(options), pool_(pool) {}

  void add(bench::Extent extent) { extents_.push_back(extent); }

  /// Connects and tells the disk's size; sends what add() has brought once `planned` is ready.
  void run(std::promise<uint64_t>& disk_size, const std::shared_future<void>& planned) {
    try {
      io::RingRuntime parts;
      parts.ring().run(work(parts, disk_size, planned));
    } catch (...) {
      failure_ = std::current_exception();
      if (!connected_) disk_size.set_exception(failure_);
    }
  }

  std::exception_ptr failure() const { return failure_; }
  Clock::time_point start() const { return start_; }
  Clock::time_point end() const { return end_; }
  const std::vector<double>& latencies() const { return latencies_; }  // microseconds

 private:
  io::Task<void> work(io::RingRuntime& parts, std::promise<uint64_t>& disk_size,
                      const std::shared_future<void>& planned) {
    // As little as a client can ask for, so that the server is what is measured.
    nbd::ClientOptions plain{.export_name = options_.server.export_name,
                             .structured_replies = false,
                             .extended_headers = false,
                             .contexts = {}};
    auto stream = co_await connect(parts.ring(), options_.server);
    auto opening = nbd::Client::open(parts.runtime(), std::move(stream), std::move(plain));
    client_ = co_await std::move(opening);
    connected_ = true;
    disk_size.set_value(client_->size());
    planned.wait();
    std::exception_ptr failure;
    try {
      co_await send_all(parts.runtime());
    } catch (...) {
      failure = std::current_exception();
    }
    co_await client_->close();
    if (failure) std::rethrow_exception(failure);
  }

  io::Task<void> send_all(io::Runtime runtime) {
    latencies_.reserve(extents_.size());
    start_ = Clock::now();
    auto all_lanes = [&](io::TaskScope& lanes) -> io::Task<void> {
      for (unsigned i = 0; i < options_.depth; ++i) lanes.spawn(lane(runtime));
      co_return;
    };
    co_await io::run_scoped(all_lanes);
    if (!options_.reads) co_await client_->flush();
    end_ = Clock::now();
  }

  io::Task<void> lane(io::Runtime runtime) {
    std::vector<std::byte> read_into(options_.reads ? options_.block : 0);
    while (next_ < extents_.size()) {
      const bench::Extent extent = extents_[next_++];
      if (options_.rate > 0) co_await keep_to_rate(runtime, extent.length);
      const Clock::time_point sent = Clock::now();
      if (options_.reads) {
        assert(extent.length <= read_into.size());
        co_await client_->read(extent.offset, std::span(read_into).first(extent.length));
      } else if (options_.zeroes) {
        co_await client_->write_zeroes(extent.offset, extent.length, io::ZeroMode::may_unmap);
      } else {
        const auto payload = next_payload(extent.length);
        co_await client_->write_from(extent.offset, payload);
      }
      const std::chrono::duration<double, std::micro> took = Clock::now() - sent;
      latencies_.push_back(took.count());
    }
  }

  std::span<const std::byte> next_payload(uint64_t length) {
    if (pool_at_ + length > pool_.size()) pool_at_ = 0;
    const auto payload = pool_.subspan(pool_at_, length);
    pool_at_ += length;
    return payload;
  }

  io::Task<void> keep_to_rate(const io::Runtime& runtime, uint64_t bytes) {
    const double share = static_cast<double>(options_.rate) / options_.connections;
    const std::chrono::duration<double> due(static_cast<double>(sent_bytes_) / share);
    sent_bytes_ += bytes;
    const Clock::time_point at = start_ + std::chrono::duration_cast<Clock::duration>(due);
    const Clock::time_point now = Clock::now();
    if (at > now) co_await io::sleep(runtime.executor, runtime.clock, at - now);
  }

  const LoadOptions& options_;
  std::span<const std::byte> pool_;
  std::unique_ptr<nbd::Client> client_;
  std::vector<bench::Extent> extents_;
  std::vector<double> latencies_;
  Clock::time_point start_, end_;
  size_t next_ = 0;     // extent
  size_t pool_at_ = 0;  // bytes
  uint64_t sent_bytes_ = 0;
  bool connected_ = false;
  std::exception_ptr failure_;
};

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  const auto index = static_cast<size_t>(part * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

void report(const LoadOptions& options, const std::vector<std::unique_ptr<Worker>>& workers) {
  Clock::time_point start = workers.front()->start(), end = workers.front()->end();
  std::vector<double> latencies;
  for (const auto& worker : workers) {
    start = std::min(start, worker->start());
    end = std::max(end, worker->end());
    latencies.insert(latencies.end(), worker->latencies().begin(), worker->latencies().end());
  }
  std::sort(latencies.begin(), latencies.end());
  const std::chrono::duration<double> seconds = end - start;
  fmt::print(
      "{{\"bytes\":{},\"seconds\":{:.6f},\"p50_us\":{:.1f},\"p99_us\":{:.1f},\"p999_us\":{:.1f}}}"
      "\n",
      options.bytes, seconds.count(), percentile(latencies, 0.5), percentile(latencies, 0.99),
      percentile(latencies, 0.999));
}

using Workers = std::vector<std::unique_ptr<Worker>>;

/// Every worker has connected when this returns; each then waits for the plan.
uint64_t connect_all(Workers& workers, std::vector<std::thread>& threads,
                     const std::shared_future<void>& planned) {
  std::vector<std::promise<uint64_t>> sizes(workers.size());
  std::vector<std::future<uint64_t>> answers;
  for (auto& size : sizes) answers.push_back(size.get_future());
  for (size_t i = 0; i < workers.size(); ++i) {
    threads.emplace_back([&worker = *workers[i], size = std::move(sizes[i]), planned]() mutable {
      worker.run(size, planned);
    });
  }
  for (auto& answer : answers) answer.wait();
  uint64_t disk_size = 0;
  for (auto& answer : answers) disk_size = answer.get();
  return disk_size;
}

/// BLOCK_STATUS of the whole disk in one context, with 64-bit requests where the server has them.
io::Task<void> ask_status(io::RingRuntime& parts, Server server, std::string context) {
  nbd::ClientOptions options{.export_name = server.export_name, .contexts = {context}};
  auto stream = co_await connect(parts.ring(), std::move(server));
  auto opening = nbd::Client::open(parts.runtime(), std::move(stream), std::move(options));
  const std::unique_ptr<nbd::Client> client = co_await std::move(opening);
  const Clock::time_point start = Clock::now();
  std::chrono::duration<double> first{}, whole{};
  uint64_t at = 0, runs = 0;
  while (at < client->size()) {
    const std::vector<nbd::StatusPayload> answers =
        co_await client->block_status(at, client->size() - at);
    whole = Clock::now() - start;
    if (at == 0) first = whole;
    for (const nbd::StatusRun& run : answers.at(0).runs) at += run.length;
    runs += answers.at(0).runs.size();
  }
  co_await client->close();
  fmt::print("{{\"first_ms\":{:.2f},\"whole_ms\":{:.2f},\"runs\":{}}}\n", first.count() * 1e3,
             whole.count() * 1e3, runs);
}

void load(const LoadOptions& options) {
  const std::vector<std::byte> pool = random_pool(options.seed);
  Workers workers;
  for (unsigned i = 0; i < options.connections; ++i) {
    workers.push_back(std::make_unique<Worker>(options, pool));
  }
  std::promise<void> plan;
  std::vector<std::thread> threads;
  std::exception_ptr failure;
  try {
    const uint64_t disk_size = connect_all(workers, threads, plan.get_future().share());
    const std::vector<bench::Extent> extents =
        bench::plan(options.pattern, options.bytes, options.block, disk_size, options.seed);
    for (size_t i = 0; i < extents.size(); ++i) workers[i % workers.size()]->add(extents[i]);
  } catch (...) {
    failure = std::current_exception();
  }
  plan.set_value();
  for (std::thread& thread : threads) thread.join();
  for (const auto& worker : workers) {
    if (!failure) failure = worker->failure();
  }
  if (failure) std::rethrow_exception(failure);
  report(options, workers);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "writes to an NBD export with a fixed number of requests in flight, then FLUSHes; or reads");
  LoadOptions options;
  std::string block = "256K", bytes = "4G", rate;
  app.add_option("--unix", options.server.unix_path, "socket");
  app.add_option("--tcp", options.server.tcp, "HOST:PORT");
  app.add_option("--export", options.server.export_name, "export name");
  app.add_option("--pattern", options.pattern, "sequential, scattered, random or client");
  app.add_option("--block", block, "bytes a request");
  app.add_option("--bytes", bytes, "bytes in all");
  app.add_option("--depth", options.depth, "requests in flight on each connection");
  app.add_option("--connections", options.connections, "connections")->check(CLI::Range(1, 256));
  app.add_option("--rate", rate, "bytes a second in all (default: as fast as it goes)");
  app.add_option("--seed", options.seed, "of the random bytes and offsets");
  app.add_flag("--zeroes", options.zeroes, "WRITE_ZEROES instead of WRITE");
  app.add_option("--status", options.status, "BLOCK_STATUS of the whole disk in this context");
  app.add_flag("--reads", options.reads, "READ instead of WRITE, and no FLUSH");
  CLI11_PARSE(app, argc, argv);
  try {
    options.block = app::parse_size(block);
    options.bytes = app::parse_size(bytes);
    if (!rate.empty()) options.rate = app::parse_size(rate);
    if (options.status.empty()) {
      load(options);
    } else {
      io::RingRuntime parts;
      parts.ring().run(ask_status(parts, options.server, options.status));
    }
    return 0;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "load: {}\n", failure.what());
    return 1;
  }
}
