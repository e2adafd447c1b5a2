// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "engine/values/options.h"
#include "engine/values/views.h"
#include "io/runtime.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "nbd/server.h"

namespace engine {

/// For whom a port is open.
struct PortUse {
  std::string job_id, vm_name, export_name;
  Time allocated_at{};
};

/// The two ways into an export: by its name on the main listener, and by a port of its own, the
/// lowest of the range that is free and can really be bound.
///
/// Invariant: a port is given out again only after its listener is closed and the last connection
/// accepted on it has ended; a port that another program holds is skipped and reported, never
/// touched. Belongs to the control thread and visits the server's. Spec: docs/nbd-support.md,
/// L5–L9.
class Ports {
 public:
  Ports(io::Runtime home, io::Executor& there, nbd::Server& server, nbd::ExportTable& exports,
        const EngineOptions& options);
  /// After join().
  ~Ports() = default;

  /// Throws no_ports unless `count` ports are free, as far as varve itself knows.
  void require(size_t count) const;

  /// Serves `exported` by name and, where ports are configured, on its own port. Returns the port
  /// for the targets: its own or, with names only, the main listener's. Throws no_ports.
  io::Task<uint16_t> open(std::shared_ptr<nbd::Export> exported, PortUse use);

  /// The name is gone and the listener closed when this returns; connections may linger.
  io::Task<void> close(std::shared_ptr<nbd::Export> exported);

  /// Waits until the connections of all closed ports have ended.
  io::Task<void> join() { return closing_.join(); }

  PortsStatus status() const;
  size_t allocated() const { return open_.size(); }
  /// The port of an export; 0 when it has none.
  uint16_t port_of(const std::string& export_name) const;

 private:
  io::Task<uint16_t> bind_lowest(std::shared_ptr<nbd::Export> exported);
  io::Task<void> close_port(uint16_t port, std::shared_ptr<io::Event> done);

  const io::Runtime home_;
  io::Executor& there_;
  nbd::Server& server_;
  nbd::ExportTable& exports_;
  const EngineOptions& options_;
  io::Mutex binding_;                 // one search at a time
  std::map<uint16_t, PortUse> open_;  // announced
  std::set<uint16_t> lingering_;      // closed, with connections
  std::set<uint16_t> blocked_;        // taken by other programs when last tried
  io::TaskScope closing_;
};

}  // namespace engine
