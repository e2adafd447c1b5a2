// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/catalogue/jobs.h"
#include "engine/catalogue/points.h"
#include "engine/catalogue/rebuild_plan.h"
#include "engine/catalogue/repositories.h"
#include "engine/catalogue/restores.h"
#include "engine/catalogue/samples.h"
#include "engine/catalogue/verifications.h"
#include "engine/catalogue/vms.h"

namespace engine {

/// What varve knows: VMs, repositories, jobs, published points. One SQLite file, no server.
///
/// Invariant: each operation is one transaction; what it says is on the disk when it returns,
/// except progress (counters, telemetry), which a power loss may take back a little. The files of
/// a repository and their sidecars are the truth; this can be rebuilt from them (rebuild.h).
/// Secrets are never in it. Spec: docs/catalogue.md.
/// Opened and used on one thread; no clock inside: times come from the caller.
class Catalogue {
 public:
  /// Opens or creates the file and brings it to the present schema. Throws DbError.
  /// With DbAccess::read_only the file must be there, of the present schema; nothing is changed.
  explicit Catalogue(const std::string& path, DbAccess access = DbAccess::read_write);

  /// Damage found by SQLite's own checks; empty when there is none.
  std::vector<std::string> integrity_problems();

  /// A small durable write that changes nothing. Throws DbError when the catalogue takes none.
  void try_write();

  /// Takes over what the files of a repository said: VMs, completed jobs, points, chains. What is
  /// known already stays, unless a proof is newer, or a job is complete that was not yet when the
  /// catalogue was copied. One transaction, and one for each proof. Returns
  /// a sentence per VM or job that was left out.
  std::vector<std::string> adopt(const RebuildPlan& plan);

 private:
  /// Why the job was left out; "" when the catalogue has it.
  std::string adopt_job(const Job& job);

  Db db_;

 public:
  VmCatalogue vms;
  RepositoryCatalogue repositories;
  JobCatalogue jobs;
  PointCatalogue points;
  RestoreCatalogue restores;
  SampleCatalogue samples;
  VerificationCatalogue verifications;
};

}  // namespace engine
