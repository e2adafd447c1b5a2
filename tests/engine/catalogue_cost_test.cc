// SPDX-License-Identifier: Apache-2.0
#include <sqlite3.h>

#include "engine/catalogue/schema.h"
#include "tests/engine/catalogue_fixture.h"

/// What a look at all VMs costs, in steps of SQLite's virtual machine, which no load of the machine
/// changes. It stands between every client and the control thread, so it must not grow with
/// history.
namespace engine {
namespace {

class CatalogueCost : public CatalogueTest {
 protected:
  /// Of every statement of `call`.
  template <typename Call>
  uint64_t steps_of(const Call& call) {
    Db db(path());
    uint64_t steps = 0;
    const auto add = [](unsigned, void* sum, void* statement, void*) {
      *static_cast<uint64_t*>(sum) += static_cast<uint64_t>(
          sqlite3_stmt_status(static_cast<sqlite3_stmt*>(statement), SQLITE_STMTSTATUS_VM_STEP, 0));
      return 0;
    };
    sqlite3_trace_v2(db.handle(), SQLITE_TRACE_PROFILE, add, &steps);
    call(db);
    sqlite3_trace_v2(db.handle(), 0, nullptr, nullptr);
    return steps;
  }

  void prove(const Job& job, VerificationResult result) {
    for (const JobDisk& disk : job.disks) {
      ImageVerification proof;
      proof.image_id = disk.image_id;
      proof.verified_at = now();
      proof.result = result;
      catalogue().verifications.put(proof);
    }
  }
};

TEST_F(CatalogueCost, ALookAtAllVmsDoesNotGrowWithTheirHistoryWhateverWasProven) {
  const std::vector<std::pair<const char*, std::function<void(Db&)>>> looks = {
      {"list_ages", [](Db& db) { VmCatalogue(db).list_ages(); }},
      {"listed", [](Db& db) { VmCatalogue(db).listed(); }},
      {"count_by_state", [](Db& db) { JobCatalogue(db).count_by_state(); }},
      {"count_by_verification", [](Db& db) { PointCatalogue(db).count_by_verification(); }},
      {"chain_lengths", [](Db& db) { PointCatalogue(db).chain_lengths(); }}};
  // The newest good and the newest proven point are the oldest ones, so that a search ends there.
  const Vm damaged = add_vm("damaged", {2000}), proven = add_vm("proven", {2000});
  for (const Vm& vm : {damaged, proven}) {
    const Job root = backup(vm, BackupType::full, 1);
    prove(root, VerificationResult::sound);
    const Job second = backup(vm, BackupType::incremental, 2);
    if (vm.vm_name == "damaged") prove(second, VerificationResult::damaged);
  }
  std::vector<uint64_t> few;
  for (const auto& [name, look] : looks) few.push_back(steps_of(look));
  for (uint32_t number = 3; number <= 30; ++number) {
    for (const Vm& vm : {damaged, proven}) backup(vm, BackupType::incremental, number);
  }
  for (size_t at = 0; at < looks.size(); ++at) {
    EXPECT_LE(steps_of(looks[at].second), few[at] * 2) << looks[at].first;
  }
  const std::vector<Vm> ages = catalogue().vms.list_ages();
  EXPECT_LT(ages.at(0).last_good_at, ages.at(1).last_good_at);
  EXPECT_EQ(ages.at(0).last_verified_at, ages.at(0).last_good_at);
}

}  // namespace
}  // namespace engine
