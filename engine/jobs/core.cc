// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/core.h"

#include <fmt/format.h>

#include <algorithm>

namespace engine {

const io::Runtime& Core::least_loaded() const {
  std::vector<size_t> load(parts.data.size());
  for (const auto& job : jobs.all()) {
    for (const auto& ingest : job->ingests) {
      if (!ingest) continue;
      for (size_t at = 0; at < parts.data.size(); ++at) {
        load[at] += &parts.data[at].executor == &ingest->data().executor;
      }
    }
  }
  return parts.data[std::min_element(load.begin(), load.end()) - load.begin()];
}

void Core::tell(Notification notification) {
  ++tally.events[notification.event];
  notification.at = now();
  if (parts.notifier) parts.notifier->notify(std::move(notification));
}

void Core::tell_end(const Job& job, JobState state, const std::string& cause,
                    std::optional<FailureCode> code) {
  Notification told;
  told.event = state == JobState::completed ? NotificationEvent::completed
               : state == JobState::failed  ? NotificationEvent::failed
                                            : NotificationEvent::cancelled;
  told.vm_name = job.vm_name;
  told.backup_id = job.id;
  told.repository_id = job.repository_id;
  told.text = fmt::format("{} backup of VM {} {}{}{}", to_text(job.type), job.vm_name,
                          to_text(state), cause.empty() ? "" : ": ", cause);
  told.details["backup_type"] = to_text(job.type);
  told.details["bytes_received"] = std::to_string(job.bytes_received());
  uint64_t stored = 0;
  for (const JobDisk& disk : job.disks) stored += disk.counters.bytes_stored;
  told.details["bytes_stored"] = std::to_string(stored);
  if (!cause.empty()) told.details["cause"] = cause;
  if (code) {
    told.details["code"] = to_text(*code);
    ++tally.failures[*code];
  }
  if (!job.warnings.empty()) told.details["warnings"] = std::to_string(job.warnings.size());
  tell(std::move(told));
}

std::shared_ptr<qcow::DiskShare> Core::disk_share(const std::string& directory) {
  std::shared_ptr<qcow::DiskShare>& share = disks_[directory];
  if (!share) share = std::make_shared<qcow::DiskShare>();
  return share;
}

}  // namespace engine
