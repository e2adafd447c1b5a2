// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/start_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/jobs/end_job.h"
#include "engine/jobs/kept_transfers.h"
#include "engine/jobs/repository_files.h"
#include "engine/jobs/watch.h"
#include "engine/repository/storage.h"
#include "engine/values/layout.h"
#include "engine/values/log_fields.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "io/counted.h"
#include "io/log.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

/// Rows of job and disks, durable.
std::shared_ptr<ActiveJob> record_start(Core& core, const StartPlan& plan) {
  try {
    core.parts.reached("insert");
    std::string secret;
    if (core.options.export_access == nbd::ExportAccess::by_name) {
      secret = name_secret(core.parts.home.random);
    }
    Job row = core.catalogue->jobs.insert(plan.job, plan.directory, secret);
    auto job = std::make_shared<ActiveJob>(std::move(row), core.parts.home);
    core.jobs.add(job);
    return job;
  } catch (const Refusal&) {
    throw;
  } catch (const std::exception& failure) {
    throw refusals::backup_job_not_created(failure.what());
  }
}

IngestSpec ingest_spec(Core& core, const StartPlan& plan, std::weak_ptr<ActiveJob> job,
                       const JobDisk& disk, const qcow::Uuid& uuid,
                       const std::optional<Point>& parent) {
  IngestSpec spec;
  spec.path = partial_path(disk.image_path);
  spec.sums_path = sums_path(disk.image_path);
  if (plan.job.keep_partial) spec.arrived_path = arrived_path(disk.image_path);
  spec.resumes = !plan.job.resumes.empty();
  spec.image_uuid = uuid;
  spec.export_name = disk.export_name;
  spec.description = fmt::format("{} disk {} of {}", plan.vm.vm_name, disk.index, disk.job_id);
  spec.capacity_bytes = disk.capacity_bytes;
  if (parent) {
    spec.parent = IngestParent{.path = parent->image_path, .file_bytes = parent->file_bytes};
    for (const Point& point : core.catalogue->points.lineage(*parent)) {
      spec.ancestors.push_back({point.image_id, point.job_id});
    }
  }
  spec.whole = plan.job.type == BackupType::full;
  spec.repository_directory = plan.directory;
  spec.connections_max = core.options.connections_per_export;
  spec.access = core.options.export_access;
  spec.owner = disk.job_id;
  spec.commit_interval = core.options.commit_interval;
  spec.write_elision = core.options.write_elision;
  spec.commit_bytes = core.options.commit_bytes;
  spec.disk = core.disk_share(plan.directory);
  spec.on_connection = [&core, job, index = disk.index] {
    if (const auto running = job.lock()) note_connection(*core.catalogue, *running, index);
  };
  spec.on_failure = [&core, job, index = disk.index](std::string cause) {
    if (const auto running = job.lock()) {
      core.background.spawn(
          // What a storage that fails has taken is not to be trusted, and its space may be needed.
          fail_job(core, running, FailureCode::storage,
                   fmt::format("disk {}: {}", index, std::move(cause)), Ingest::Leaving::nothing));
    }
  };
  return spec;
}

/// Throws for a job that was ended while it was being started.
void require_active(const ActiveJob& job) {
  if (is_active(job.row.state)) return;
  throw refusals::job_not_running(
      job.row.id, fmt::format("{}: {}", to_text(job.row.state), job.row.error_message));
}

/// The catalogue gives a name out once. One that is taken nevertheless belongs to a backup that the
/// catalogue has forgotten.
io::Task<void> require_free_names(io::FileSystem& files, std::string image_path) {
  const std::array names = {image_path,
                            partial_path(image_path),
                            sidecar_path(image_path),
                            sums_path(image_path),
                            proof_path(image_path),
                            arrived_path(image_path)};
  for (const std::string& path : names) {
    const auto taken = co_await files.status(path, false);
    if (!taken) continue;
    throw std::runtime_error(
        fmt::format("{} is there already and the catalogue does not know it; if an older copy of "
                    "the catalogue was put back, bring it up to date with 'varve rebuild'",
                    path));
  }
}

io::Task<void> open_disk(Core& core, const StartPlan& plan, std::shared_ptr<ActiveJob> job,
                         size_t at) {
  JobDisk& disk = job->row.disks[at];
  core.parts.reached("image");
  // Whoever ends the job meanwhile ends it before this disk or with it.
  const io::Grant step = co_await job->steps.lock();
  require_active(*job);
  {
    // No deletion finds the directory empty before the image is in it.
    const io::Grant turn = co_await core.turns.take(job->row.repository_id, job->row.context_id);
    std::string directory = io::parent_path(disk.image_path);
    co_await core.files().make_directories(std::move(directory));
    UNLESS_PLANTED(delete_without_identity)
    if (job->row.resumes.empty()) co_await require_free_names(core.files(), disk.image_path);
    IngestSpec spec = ingest_spec(core, plan, job, disk, plan.image_uuids[at], plan.parents[at]);
    job->ingests[at] = co_await Ingest::open(core.parts.home, core.least_loaded(), std::move(spec));
  }
  core.parts.reached("export");
  PortUse use{.job_id = job->row.id,
              .vm_name = job->row.vm_name,
              .export_name = disk.export_name,
              .allocated_at = core.now()};
  disk.port = co_await core.ports.open(job->ingests[at]->exported(), std::move(use));
}

/// Images, exports and listeners of all disks; throws the refusal that says which disk failed.
io::Task<void> open_disks(Core& core, const StartPlan& plan, std::shared_ptr<ActiveJob> job) {
  std::vector<std::pair<uint32_t, uint16_t>> ports;
  for (size_t at = 0; at < job->row.disks.size(); ++at) {
    const JobDisk& disk = job->row.disks[at];
    try {
      co_await open_disk(core, plan, job, at);
    } catch (const Refusal&) {
      throw;
    } catch (const std::exception& failure) {
      throw refusals::disk_not_prepared(job->row.id, fmt::format("disk {} ({}): {}", disk.index,
                                                                 disk.image_path, failure.what()));
    }
    ports.emplace_back(disk.index, disk.port);
  }
  {
    const io::Grant turn = co_await core.turns.take(job->row.repository_id, job->row.context_id);
    co_await refresh_vm_file(core, job->row.context_id, job->row.repository_id);
  }
  require_active(*job);  // whoever had the turn before may have taken long
  job->row.nbd_targets = nbd_targets(core.options, job->row);
  core.parts.reached("targets");
  core.catalogue->jobs.set_ports(job->row.id, job->row.nbd_targets, ports);
}

io::Task<void> call_node(Core& core, const StartPlan& plan, std::shared_ptr<ActiveJob> job) {
  if (!calls_node(core.options, job->row.client)) co_return;
  core.parts.reached("node call");
  NodeCall call = node_call_of(core.options, job->row, plan.credentials);
  const NodeAnswer answer = co_await core.parts.node.call(std::move(call));
  switch (answer.outcome) {
    case NodeAnswer::Outcome::accepted:
      ++core.tally.node_calls["accepted"];
      io::log(io::LogLevel::info, about(job->row), "job {}: the node has started the client",
              job->row.id);
      break;
    case NodeAnswer::Outcome::refused:
      ++core.tally.node_calls["refused"];
      throw refusals::node_refused(job->row.id, answer.status, answer.text);
    case NodeAnswer::Outcome::unreachable:
      ++core.tally.node_calls["unreachable"];
      throw refusals::node_unreachable(job->row.id, answer.text);
  }
}

io::Task<void> run_start(Core& core, const StartPlan& plan, std::shared_ptr<ActiveJob> job) {
  co_await open_disks(core, plan, job);
  job->row.started_at = core.now();
  job->speed.note(core.steady_now(), 0);
  co_await call_node(core, plan, job);
  const io::Grant step = co_await job->steps.lock();
  if (job->row.state != JobState::preparing) co_return;
  core.parts.reached("running");
  core.catalogue->jobs.set_running(job->row.id, core.now());
  job->row.state = JobState::running;
  job->waiting_since = core.steady_now();
}

/// What the caller is told when a start failed: the refusal, or the text of its step.
Refusal refusal_of(const std::exception_ptr& failure, const std::string& job_id) {
  try {
    std::rethrow_exception(failure);
  } catch (const Refusal& refusal) {
    return refusal;
  } catch (const std::exception& cause) {
    return refusals::disk_not_prepared(job_id, cause.what());
  }
}

}  // namespace

io::Task<Job> start_job(Core& core, StartBackup request) {
  const StartPlan plan = co_await plan_start(core, request);
  const auto job = record_start(core, plan);
  io::log(io::LogLevel::info, about(job->row), "job {}: {} backup of VM {} ({}) into repository {}",
          job->row.id, to_text(job->row.type), job->row.vm_name,
          io::counted(job->row.disks.size(), "disk"), job->row.repository_id);
  if (!job->row.resumes.empty()) {
    io::log(io::LogLevel::info, about(job->row), "job {}: goes on with what job {} has left",
            job->row.id, job->row.resumes);
  }
  std::exception_ptr failure;
  try {
    co_await drop_kept_of(core, job->row.repository_id, "another backup has begun",
                          job->row.resumes, job->row.context_id);
    co_await run_start(core, plan, job);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    const Refusal refusal = refusal_of(failure, job->row.id);
    const io::Grant step = co_await job->steps.lock();
    // A fast client may have completed everything although the node's answer was lost.
    if (job->row.state != JobState::completed && job->row.state != JobState::finalizing) {
      co_await end_job(core, job, JobState::failed, refusal.what(), FailureCode::not_started);
      throw refusal;
    }
  }
  if (job->row.state == JobState::failed || job->row.state == JobState::cancelled) {
    throw refusals::job_not_running(
        job->row.id, fmt::format("{}: {}", to_text(job->row.state), job->row.error_message));
  }
  co_return job->row;
}

bool calls_node(const EngineOptions& options, BackupClient client) {
  return client == BackupClient::node && !options.node_url.empty();
}

std::string nbd_targets(const EngineOptions& options, const Job& job) {
  std::vector<const JobDisk*> by_key;
  for (const JobDisk& disk : job.disks) by_key.push_back(&disk);
  std::sort(by_key.begin(), by_key.end(),
            [](const JobDisk* a, const JobDisk* b) { return a->key < b->key; });
  const nbd::TlsMode tls =
      options.targets == TargetsMode::ports ? options.ports_tls : options.main_tls;
  // The existing client speaks no TLS: where plain NBD is served too, it gets that address.
  const std::string_view scheme = tls == nbd::TlsMode::require ? "nbds" : "nbd";
  std::string targets;
  for (const JobDisk* const disk : by_key) {
    targets += fmt::format("{}{}:{}://{}:{}/{}", targets.empty() ? "" : ",", disk->key, scheme,
                           options.advertised_host, disk->port, disk->export_name);
  }
  return targets;
}

NodeCall node_call_of(const EngineOptions& options, const Job& job,
                      const Credentials& credentials) {
  NodeCall call;
  call.job_id = job.id;
  call.vm_name = job.vm_name;
  call.vm_path = job.vm_path;
  call.vcenter_host = job.vcenter_host;
  call.vcenter_user = credentials.username;
  call.vcenter_password = credentials.password;
  call.nbd_targets = job.nbd_targets;
  call.backup_type = to_text(job.type);
  for (const JobDisk& disk : job.disks) {
    if (disk.parent_change_id.empty()) continue;
    call.previous_change_id = disk.parent_change_id;
    break;
  }
  call.nbd_host = options.advertised_host;
  return call;
}

}  // namespace engine
