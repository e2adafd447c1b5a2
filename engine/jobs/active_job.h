// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ingest/ingest.h"
#include "engine/ingest/speed_meter.h"
#include "engine/values/types.h"
#include "io/clock.h"
#include "io/sync.h"

namespace engine {

/// Since when a disk has had no connection, and which one was the last.
struct LostConnection {
  std::optional<io::SteadyTime> since;
  uint64_t connection_order = 0;
};

/// One running backup: its row, the disks being filled, and what the watch goes by.
///
/// Invariant: `row` says what the catalogue says, or is one step ahead of it inside a step. Steps
/// (complete, cancel, fail) hold `steps`, so that they run one after the other; the node call of
/// the start does not, because a fast client completes while it runs. Control thread.
struct ActiveJob {
  ActiveJob(Job row, io::Runtime home)
      : row(std::move(row)), steps(home.executor), begun(home.clock.now()) {
    ingests.resize(this->row.disks.size());
    lost.resize(this->row.disks.size());
  }

  JobDisk* disk(uint32_t index) {
    for (JobDisk& disk : row.disks) {
      if (disk.index == index) return &disk;
    }
    return nullptr;
  }
  /// Null before it is opened and after it was given up. `disk` is one of row's.
  Ingest* ingest(const JobDisk& disk) const { return ingests[&disk - row.disks.data()].get(); }

  uint32_t disks_sealed() const {
    uint32_t count = 0;
    for (const JobDisk& disk : row.disks) count += is_sealed(disk.state);
    return count;
  }

  Job row;
  std::vector<std::unique_ptr<Ingest>> ingests;  ///< one per disk of row, in its order
  io::Mutex steps;

  bool failing = false;  ///< a failure waits for the step under way
  SpeedMeter speed;
  uint64_t next_sample = 0;  ///< count of server samples taken
  io::SteadyTime begun;
  std::optional<io::SteadyTime> waiting_since;  ///< for a first connection; since node or last seal
  std::optional<io::SteadyTime> last_telemetry;
  bool change_id_asked = false;      ///< by the existing client, which samples for zeroes
  std::vector<LostConnection> lost;  ///< one per disk
};

/// The running jobs. A VM has at most one. Control thread.
class ActiveJobs {
 public:
  void add(std::shared_ptr<ActiveJob> job) { by_id_[job->row.id] = std::move(job); }
  void remove(const std::string& job_id) { by_id_.erase(job_id); }

  std::shared_ptr<ActiveJob> find(const std::string& job_id) const {
    const auto found = by_id_.find(job_id);
    return found == by_id_.end() ? nullptr : found->second;
  }
  std::shared_ptr<ActiveJob> of_vm(const std::string& context_id) const {
    for (const auto& [id, job] : by_id_) {
      if (job->row.context_id == context_id) return job;
    }
    return nullptr;
  }
  /// A copy, because jobs come and go while a coroutine walks it.
  std::vector<std::shared_ptr<ActiveJob>> all() const {
    std::vector<std::shared_ptr<ActiveJob>> jobs;
    for (const auto& [id, job] : by_id_) jobs.push_back(job);
    return jobs;
  }
  bool empty() const { return by_id_.empty(); }
  size_t size() const { return by_id_.size(); }

 private:
  std::map<std::string, std::shared_ptr<ActiveJob>> by_id_;
};

}  // namespace engine
