// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/ports.h"

#include <algorithm>
#include <system_error>

#include "engine/values/refusal.h"
#include "io/call_on.h"
#include "io/log.h"
#include "io/outcome.h"

namespace engine {
namespace {

constexpr auto kPatienceWithNobodyConnected = std::chrono::milliseconds(200);

}  // namespace

Ports::Ports(io::Runtime home, io::Executor& there, nbd::Server& server, nbd::ExportTable& exports,
             const EngineOptions& options)
    : home_(home),
      there_(there),
      server_(server),
      exports_(exports),
      options_(options),
      binding_(home.executor) {}

void Ports::require(size_t count) const {
  if (!options_.ports) return;
  const PortNumbers range = *options_.ports;
  const size_t total = size_t{range.last} - range.first + 1;
  if (open_.size() + lingering_.size() + count > total) {
    throw refusals::no_ports(range.first, range.last);
  }
}

io::Task<uint16_t> Ports::open(std::shared_ptr<nbd::Export> exported, PortUse use) {
  uint16_t port = options_.nbd_port;
  if (options_.ports && options_.targets == TargetsMode::ports) {
    const io::Grant search = co_await binding_.lock();
    port = co_await bind_lowest(exported);
    open_[port] = std::move(use);
  }
  io::Outcome<> added = io::attempt([&] { exports_.add(exported); });
  if (added.failed()) co_await close(exported);
  added.take();
  co_return port;
}

io::Task<uint16_t> Ports::bind_lowest(std::shared_ptr<nbd::Export> exported) {
  const PortNumbers range = *options_.ports;
  for (uint32_t number = range.first; number <= range.last; ++number) {
    const auto port = static_cast<uint16_t>(number);
    if (open_.contains(port) || lingering_.contains(port)) continue;
    const auto try_port = [&]() -> io::Task<bool> {
      try {
        server_.open_port({options_.ports_host, port}, exported);
        co_return true;
      } catch (const std::system_error& failure) {
        if (failure.code().value() != EADDRINUSE && failure.code().value() != EACCES) throw;
        co_return false;
      }
    };
    const bool bound = co_await io::call_on(there_, home_.executor, try_port);
    if (bound) {
      blocked_.erase(port);
      co_return port;
    }
    if (blocked_.insert(port).second) {
      io::log(io::LogLevel::warning, "port {} is taken by another program and is skipped", port);
    }
  }
  throw refusals::no_ports(range.first, range.last);
}

io::Task<void> Ports::close(std::shared_ptr<nbd::Export> exported) {
  exports_.remove(*exported);
  const uint16_t port = port_of(exported->name());
  if (port == 0) co_return;
  open_.erase(port);
  lingering_.insert(port);
  const auto done = std::make_shared<io::Event>(home_.executor);
  closing_.spawn(close_port(port, done));
  // Calls arrive there in order: once this one is back, the listener is closed.
  const auto nothing = []() -> io::Task<void> { co_return; };
  co_await io::call_on(there_, home_.executor, nothing);
  // Without a connection the port is free in a moment, and the next job may want it.
  if (exported->counters().connections_now == 0) {
    co_await io::wait_for(home_.executor, home_.clock, *done, kPatienceWithNobodyConnected);
  }
}

io::Task<void> Ports::close_port(uint16_t port, std::shared_ptr<io::Event> done) {
  const auto close_there = [&]() -> io::Task<void> { return server_.close_port(port); };
  co_await io::call_on(there_, home_.executor, close_there);
  lingering_.erase(port);
  done->set();
}

PortsStatus Ports::status() const {
  PortsStatus status;
  if (options_.ports) {
    status.range_start = options_.ports->first;
    status.range_end = options_.ports->last;
  }
  for (const auto& [port, use] : open_) {
    status.allocations.push_back(
        {port, use.job_id, use.vm_name, use.export_name, use.allocated_at});
  }
  status.blocked.assign(blocked_.begin(), blocked_.end());
  return status;
}

uint16_t Ports::port_of(const std::string& export_name) const {
  for (const auto& [port, use] : open_) {
    if (use.export_name == export_name) return port;
  }
  return 0;
}

}  // namespace engine
