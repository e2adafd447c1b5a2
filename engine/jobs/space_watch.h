// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "engine/jobs/core.h"

namespace engine {

/// Bytes that running jobs of the repository have allocated ahead and not used yet: they are free
/// to those jobs.
io::Task<uint64_t> held_ahead(io::FileSystem& files, const ActiveJobs& jobs,
                              std::string repository_id);

/// What a disk has free beyond the reserve bounds how much its images allocate ahead from now on,
/// so that all of them together hold a quarter of it at most.
void limit_allocation_ahead(qcow::DiskShare& disk, const ActiveJobs& jobs, uint64_t spare_bytes);

/// Fails jobs before their repository is full: below the reserve (options.h) the youngest running
/// job of the repository is given up, with how much is missing. Jobs that publish are let through.
///
/// The space of a failed job comes back when its last connection has ended, so the next job of the
/// same repository is given up no sooner than kPause later. Control thread.
class SpaceWatch {
 public:
  static constexpr io::Duration kPause = std::chrono::seconds(10);

  explicit SpaceWatch(Core& core) : core_(core) {}

  /// Begins a look at each repository that is written to and not being looked at.
  void look();
  io::Task<void> joined() { co_await looks_.joined(); }

 private:
  struct Used;
  std::map<std::string, Used> in_use() const;
  io::Task<void> look_once(std::string repository_id, Used used);
  io::Task<void> look_at(const std::string& repository_id, Used used);

  Core& core_;
  std::map<std::string, io::SteadyTime> next_;  ///< by repository, when a job was failed
  std::set<std::string> looked_at_;             ///< repositories that have not answered yet
  io::TaskScope looks_;
};

}  // namespace engine
