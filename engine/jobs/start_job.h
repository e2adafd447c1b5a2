// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// POST /backups: the checks in their order, then rows, images, exports, ports, the node call, or
/// nothing at all. Control thread. Spec: docs/jobs.md, "Start".
namespace engine {

/// A start that has passed all checks.
struct StartPlan {
  Vm vm;
  Repository repository;
  std::string directory;  ///< of the repository
  Credentials credentials;
  Job job;                                    ///< as JobCatalogue::insert wants it
  std::vector<std::optional<Point>> parents;  ///< one per disk of job
  std::vector<qcow::Uuid> image_uuids;        ///< likewise
};

/// All checks. Throws their refusals; creates nothing.
io::Task<StartPlan> plan_start(Core& core, StartBackup request);

/// Whether a node is called for a job; else whoever asked for it writes.
bool calls_node(const EngineOptions& options, BackupClient client);

/// Returns the job's row as it is once the node has accepted. Throws after a full rollback.
io::Task<Job> start_job(Core& core, StartBackup request);

/// "2000:nbd://127.0.0.1:10100/x-disk0,2001:…", ascending key.
std::string nbd_targets(const EngineOptions& options, const Job& job);

/// What the node is sent.
NodeCall node_call_of(const EngineOptions& options, const Job& job, const Credentials& credentials);

}  // namespace engine
