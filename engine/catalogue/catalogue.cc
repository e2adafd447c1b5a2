// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/catalogue.h"

#include <fmt/format.h>

#include "engine/catalogue/schema.h"

namespace engine {

Catalogue::Catalogue(const std::string& path, DbAccess access)
    : db_(path, access),
      vms(db_),
      repositories(db_),
      jobs(db_),
      points(db_),
      restores(db_),
      samples(db_),
      verifications(db_) {
  if (access == DbAccess::read_write) {
    migrate(db_, catalogue_migrations(), catalogue_views());
  } else {
    require_schema(db_, catalogue_migrations());
  }
}

std::vector<std::string> Catalogue::integrity_problems() { return engine::integrity_problems(db_); }

void Catalogue::try_write() {
  Tx tx(db_);
  db_.exec(fmt::format("PRAGMA user_version = {}", schema_version(db_)));
  tx.commit();
}

std::vector<std::string> Catalogue::adopt(const RebuildPlan& plan) {
  std::vector<std::string> left_out;
  Tx tx(db_);
  for (const Vm& vm : plan.vms) {
    if (!vms.find_context(vm.context_id) && !vms.adopt(vm)) {
      left_out.push_back(
          fmt::format("VM context {}: another VM has the name '{}'", vm.context_id, vm.vm_name));
    }
  }
  for (const Job& job : plan.jobs) {
    if (jobs.find(job.id)) continue;
    if (vms.find_context(job.context_id)) {
      jobs.adopt(job);
    } else {
      left_out.push_back(fmt::format("job {}: its VM was left out", job.id));
    }
  }
  tx.commit();
  for (const ImageVerification& proof : plan.proofs) {
    const auto known = verifications.find(proof.image_id);
    if (!known || known->verified_at < proof.verified_at) verifications.put(proof);
  }
  return left_out;
}

}  // namespace engine
