// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "engine/repository/chain_file.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "qcow/check/check.h"
#include "tests/crash/beside_run.h"

namespace crash {

/// After the restart, and after what it had to try again.
std::optional<std::string> BesideRun::judge(engine::Core& core) {
  const std::string unavailable = core.availability.cause("1");
  if (!unavailable.empty()) return "BAD: the repository is unavailable: " + unavailable;
  const std::set<std::string> promised = std::exchange(owned_, {});
  for (const auto& [job_id, contents] : published_) {
    const auto job = core.catalogue->jobs.find(job_id);
    const bool completed = job && job->state == engine::JobState::completed;
    if (!completed && promised.contains(job_id) && !doomed_.contains(job_id)) {
      return fmt::format("LOST: {} was answered completed and is gone", job_id);
    }
    if (!completed) continue;
    if (auto wrong = judge_point(core, job_id, contents)) return wrong;
  }
  if (auto wrong = judge_jobs(core)) return wrong;
  if (auto wrong = judge_chain_files(core)) return wrong;
  return judge_names();
}

std::optional<std::string> BesideRun::judge_point(engine::Core& core, const std::string& job_id,
                                                  const Contents& contents) {
  for (const engine::Point& point : core.catalogue->points.list("1")) {
    if (point.job_id != job_id) continue;
    for (const std::string& path : {point.image_path, engine::sidecar_path(point.image_path),
                                    engine::sums_path(point.image_path)}) {
      if (world_->disk.find(path) == nullptr) return fmt::format("LOST: {} is gone", path);
      owned_.insert(path);
    }
    const auto check = world_->scheduler.run(qcow::check(world_->runtime(), point.image_path, {}));
    if (!check.clean()) return fmt::format("BAD: {}", check.findings.front());
    if (read_disk(*world_, point.image_path) != contents[point.disk_index]) {
      return fmt::format("LOST: {} has not the content of its backup", point.image_path);
    }
  }
  return std::nullopt;
}

/// Nothing holds a job up any more.
std::optional<std::string> BesideRun::judge_jobs(engine::Core& core) {
  for (const engine::Job& job : core.catalogue->jobs.active_jobs()) {
    return fmt::format("BAD: {} is still {}: {}", job.id, engine::to_text(job.state),
                       job.error_message);
  }
  for (const engine::Job& job : core.catalogue->jobs.deleting_jobs()) {
    return fmt::format("BAD: the deletion of {} does not end", job.id);
  }
  return std::nullopt;
}

std::string BesideRun::text_of(const std::string& path) {
  const Node* const node = world_->disk.find(path);
  if (node == nullptr) return "";
  const Bytes& bytes = world_->disk.content(node->file);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::optional<std::string> BesideRun::judge_chain_files(engine::Core& core) {
  std::set<std::pair<std::string, uint32_t>> disks;
  for (const engine::Point& point : core.catalogue->points.list("1")) {
    disks.emplace(point.context_id, point.disk_index);
  }
  for (const auto& [context, disk] : disks) {
    const std::string path = engine::disk_directory(kRepository, context, disk) + "/chain.json";
    const auto generations = core.catalogue->points.chains(context, "1", disk);
    if (text_of(path) != engine::encode_chain_file(generations)) {
      return fmt::format("BAD: {} is not what the catalogue says", path);
    }
    owned_.insert(path);
    owned_.insert(fmt::format("{}/{}/vm.json", kRepository, context));
  }
  return std::nullopt;
}

/// A link leads to a point, or to the directory of points.
bool BesideRun::leads_to_owned(const std::string& target) const {
  if (owned_.contains(target)) return true;
  const auto below = owned_.lower_bound(target + "/");
  return below != owned_.end() && below->starts_with(target + "/");
}

std::optional<std::string> BesideRun::judge_names() {
  const std::string repository = std::string(kRepository) + "/";
  for (const auto& [path, node] : world_->disk.names()) {
    if (!path.starts_with(repository) || owned_.contains(path)) continue;
    const bool top = directory_of(path) == kRepository;
    if (top && path.starts_with(repository + ".")) continue;  // the repository's own
    // What a repository in trouble did not let go; it describes a VM, and the next deletion takes
    // it.
    const bool trouble = trouble_has_come_ || world_->files.faults.has_struck;
    if (trouble && path.ends_with("/vm.json")) continue;
    if (node.is_link() && leads_to_owned(directory_of(path) + "/" + node.link_target)) continue;
    return fmt::format("BAD: {} belongs to nobody; {}", path, world_->files.faults.text());
  }
  return std::nullopt;
}

}  // namespace crash
