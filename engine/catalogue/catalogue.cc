// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/catalogue.h"

#include <fmt/format.h>

#include <optional>
#include <stdexcept>

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

std::string Catalogue::adopt_job(const Job& job) {
  const std::optional<Job> known = jobs.find(job.id);
  if (known && known->state == JobState::completed) return {};
  if (!vms.find_context(job.context_id)) return "its VM was left out";
  const auto contradiction = [](const std::exception& failure) {
    return fmt::format(
        "the catalogue, an older copy perhaps, has something else in its place ({}); if the files "
        "are right, rebuild into a new catalogue",
        failure.what());
  };
  Savepoint part(db_);
  try {
    jobs.adopt(job);
    part.keep();
    return {};
  } catch (const DbError& failure) {
    if (!failure.is_contradiction()) throw;
    return contradiction(failure);
  } catch (const std::logic_error& failure) {
    return contradiction(failure);
  }
}

std::vector<std::string> Catalogue::adopt(const RebuildPlan& plan) {
  std::vector<std::string> left_out;
  Tx tx(db_);
  for (const Vm& vm : plan.vms) {
    if (!vms.adopt(vm)) {
      left_out.push_back(
          fmt::format("VM context {}: another VM has the name '{}'", vm.context_id, vm.vm_name));
    }
  }
  for (const Job& job : plan.jobs) {
    const std::string reason = adopt_job(job);
    if (!reason.empty()) left_out.push_back(fmt::format("job {}: {}", job.id, reason));
  }
  tx.commit();
  for (const ImageVerification& proof : plan.proofs) {
    const auto known = verifications.find(proof.image_id);
    if (!known || known->verified_at < proof.verified_at) verifications.put(proof);
  }
  return left_out;
}

}  // namespace engine
