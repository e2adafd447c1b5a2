// A load generator for NBD servers: a number of connections, each with a number of requests in
// flight, each on a thread of its own, ended by FLUSH.
//
// Payload comes from a pool of random bytes that was touched before the clock starts. Prints one
// line of JSON: bytes, seconds from the first request to the reply of the FLUSH, and the requests'
// latencies in microseconds. scripts/bench drives it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <random>
#include <thread>
#include <vector>

#include "app/options.h"
#include "bench/connection.h"
#include "bench/patterns.h"
#include "io/big_endian.h"

namespace {

using Clock = std::chrono::steady_clock;

struct LoadOptions {
  bench::Server server;
  std::string pattern = "sequential";
  uint64_t block = 256 << 10, bytes = uint64_t{4} << 30;
  unsigned depth = 16, connections = 1;
  uint64_t rate = 0;  // bytes a second in all; 0: as fast as it goes
  uint64_t seed = 1;
  bool zeroes = false;
};

/// Random bytes, more than any cache holds, touched before the clock starts.
std::vector<std::byte> random_pool(uint64_t seed) {
  std::vector<std::byte> pool(size_t{128} << 20);
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < pool.size(); at += 8) io::store_be(&pool[at], random());
  return pool;
}

/// One connection's share of the requests.
class Worker {
 public:
  Worker(const LoadOptions& options, std::span<std::byte> pool)
      : options_(options), pool_(pool), connection_(options.server) {}

  uint64_t disk_size() const { return connection_.size(); }
  void add(bench::Extent extent) { extents_.push_back(extent); }

  void run() {
    latencies_.reserve(extents_.size());
    sent_at_.resize(extents_.size() + 2);
    start_ = Clock::now();
    for (const bench::Extent& extent : extents_) {
      if (in_flight_ == options_.depth) take_reply();
      keep_to_rate();
      send(extent);
    }
    while (in_flight_ > 0) take_reply();
    connection_.request(nbd::Command::flush, 0, 0);
    connection_.take_reply();
    end_ = Clock::now();
    connection_.request(nbd::Command::disconnect, 0, 0);
  }

  Clock::time_point start() const { return start_; }
  Clock::time_point end() const { return end_; }
  const std::vector<double>& latencies() const { return latencies_; }  // microseconds

 private:
  void send(const bench::Extent& extent) {
    const Clock::time_point now = Clock::now();
    uint64_t cookie = 0;
    if (options_.zeroes) {
      cookie = connection_.request(nbd::Command::write_zeroes, extent.offset, extent.length);
    } else {
      if (pool_at_ + extent.length > pool_.size()) pool_at_ = 0;
      cookie =
          connection_.request(nbd::Command::write, extent.offset, extent.length, &pool_[pool_at_]);
      pool_at_ += extent.length;
    }
    sent_at_.at(cookie) = now;
    sent_bytes_ += extent.length;
    ++in_flight_;
  }

  void take_reply() {
    const uint64_t cookie = connection_.take_reply();
    const std::chrono::duration<double, std::micro> took = Clock::now() - sent_at_.at(cookie);
    latencies_.push_back(took.count());
    --in_flight_;
  }

  void keep_to_rate() const {
    if (options_.rate == 0) return;
    const double share = static_cast<double>(options_.rate) / options_.connections;
    const std::chrono::duration<double> due(static_cast<double>(sent_bytes_) / share);
    std::this_thread::sleep_until(start_ + std::chrono::duration_cast<Clock::duration>(due));
  }

  const LoadOptions& options_;
  std::span<std::byte> pool_;
  bench::Connection connection_;
  std::vector<bench::Extent> extents_;
  std::vector<Clock::time_point> sent_at_;  // by cookie
  std::vector<double> latencies_;
  Clock::time_point start_, end_;
  size_t pool_at_ = 0;
  uint64_t sent_bytes_ = 0;
  unsigned in_flight_ = 0;
};

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  const auto index = static_cast<size_t>(part * static_cast<double>(sorted.size()));
  return sorted[std::min(index, sorted.size() - 1)];
}

void run_all(std::vector<std::unique_ptr<Worker>>& workers) {
  std::vector<std::exception_ptr> failures(workers.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < workers.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        workers[i]->run();
      } catch (...) {
        failures[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
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

void load(const LoadOptions& options) {
  std::vector<std::byte> pool = random_pool(options.seed);
  std::vector<std::unique_ptr<Worker>> workers;
  for (unsigned i = 0; i < options.connections; ++i) {
    workers.push_back(std::make_unique<Worker>(options, pool));
  }
  const uint64_t disk_size = workers.front()->disk_size();
  const std::vector<bench::Extent> extents =
      bench::plan(options.pattern, options.bytes, options.block, disk_size, options.seed);
  for (size_t i = 0; i < extents.size(); ++i) workers[i % workers.size()]->add(extents[i]);
  run_all(workers);
  report(options, workers);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("writes to an NBD export with a fixed number of requests in flight, then FLUSHes");
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
  CLI11_PARSE(app, argc, argv);
  try {
    options.block = app::parse_size(block);
    options.bytes = app::parse_size(bytes);
    if (!rate.empty()) options.rate = app::parse_size(rate);
    load(options);
    return 0;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "load: {}\n", failure.what());
    return 1;
  }
}
