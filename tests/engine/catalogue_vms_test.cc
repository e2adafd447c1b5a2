// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <iterator>

#include "qcow/image/create.h"
#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CatalogueVms : public CatalogueTest {
 protected:
  std::vector<std::pair<uint32_t, uint32_t>> keys_and_indices(const std::string& name) {
    std::vector<std::pair<uint32_t, uint32_t>> pairs;
    const Vm vm = catalogue().vms.find(name).value();
    for (const VmDisk& disk : vm.disks) {
      pairs.emplace_back(disk.key, disk.index);
    }
    return pairs;
  }
  using Pairs = std::vector<std::pair<uint32_t, uint32_t>>;
};

TEST_F(CatalogueVms, ARegistrationComesBack) {
  PutVmContext request = registration("pgtest1");
  request.vmware_vm_id = "vm-12";
  request.datacenter = "DC1";
  request.power_state = "poweredOn";
  request.os_type = "linux";
  request.credentials = {CredentialsChange::Kind::reference, "vc1", "", ""};
  request.disks[0].unit_number = 7;
  request.disks[0].label = "Hard disk 1";
  request.disks[0].vmdk_path = "[ds] a.vmdk";
  request.disks[0].datastore = "ds";
  EXPECT_TRUE(catalogue().vms.put(request, now()));
  open();
  const Vm vm = catalogue().vms.find("pgtest1").value();
  EXPECT_EQ(vm.context_id, "ctx-pgtest1-20251008-085454");
  EXPECT_EQ(vm.safe_name, "pgtest1");
  EXPECT_EQ(vm.vm_path, "/DC1/vm/pgtest1");
  EXPECT_EQ(vm.vcenter_host, "vc1");
  EXPECT_EQ(vm.vmware_vm_id, "vm-12");
  EXPECT_EQ(vm.datacenter, "DC1");
  EXPECT_EQ(vm.power_state, "poweredOn");
  EXPECT_EQ(vm.os_type, "linux");
  EXPECT_EQ(vm.credentials, (CredentialsRef{CredentialsRef::Kind::reference, "vc1"}));
  EXPECT_EQ(vm.current_status, "discovered");
  EXPECT_EQ(vm.created_at, now());
  EXPECT_EQ(vm.disks.at(0).unit_number, 7);
  EXPECT_EQ(vm.disks.at(0).label, "Hard disk 1");
  EXPECT_EQ(vm.disks.at(0).vmdk_path, "[ds] a.vmdk");
  EXPECT_EQ(vm.disks.at(0).datastore, "ds");
  EXPECT_EQ(vm.disks.at(1).unit_number, std::nullopt);
  EXPECT_EQ(catalogue().vms.find_context(vm.context_id)->vm_name, "pgtest1");
  EXPECT_FALSE(catalogue().vms.find("other"));
}

TEST_F(CatalogueVms, A26DiskIndicesAreAssignedOnceByAscendingKey) {
  add_vm("a", {2016, 2000, 2001});
  EXPECT_EQ(keys_and_indices("a"), (Pairs{{2000, 0}, {2001, 1}, {2016, 2}}));
  EXPECT_FALSE(catalogue().vms.put(registration("a", {2016, 1999, 2002}), tick()));
  EXPECT_EQ(keys_and_indices("a"), (Pairs{{2000, 0}, {2001, 1}, {2016, 2}, {1999, 3}, {2002, 4}}));
  const Vm vm = catalogue().vms.find("a").value();
  EXPECT_TRUE(vm.disks[0].removed && vm.disks[1].removed);
  EXPECT_FALSE(vm.disks[2].removed || vm.disks[3].removed || vm.disks[4].removed);
  catalogue().vms.put(registration("a", {2001, 2003}), tick());
  EXPECT_EQ(keys_and_indices("a"),
            (Pairs{{2000, 0}, {2001, 1}, {2016, 2}, {1999, 3}, {2002, 4}, {2003, 5}}));
  EXPECT_FALSE(catalogue().vms.find("a")->disks[1].removed) << "came back under its old index";
}

TEST_F(CatalogueVms, AListKnowsTheNewestBackupOfEachVmInWhicheverRepositoryItLies) {
  add_repository("2");
  const Vm vm = add_vm("a");
  add_vm("b", {2000});
  backup(vm, BackupType::full, 1);
  backup(vm, BackupType::incremental, 2);
  const std::vector<ListedVm> listed = catalogue().vms.listed();
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].vm.vm_name, "a");
  EXPECT_EQ(listed[0].disk_count, 2u);
  EXPECT_EQ(listed[0].capacity_bytes, 2 * kGiB);
  ASSERT_TRUE(listed[0].last_point);
  EXPECT_EQ(listed[0].last_point->type, BackupType::incremental);
  EXPECT_EQ(listed[0].last_point->completed_at, now());
  EXPECT_EQ(listed[0].last_point->chain_length, 2u);
  EXPECT_EQ(listed[0].last_point->allocated_bytes, 2u * 65536 * 3);
  EXPECT_FALSE(listed[1].last_point);
  const Job elsewhere = backup(vm, BackupType::full, 3, "2");
  tick(100);
  catalogue().jobs.end(start(vm, BackupType::full).id, JobState::failed, "x", now());
  const ListedVm after = catalogue().vms.listed().front();
  EXPECT_EQ(after.last_point->job_id, elsewhere.id);
  EXPECT_EQ(after.last_point->repository_id, "2");
  EXPECT_EQ(after.last_point->chain_length, 1u);
  EXPECT_EQ(after.vm.current_status, "failed");
  EXPECT_EQ(after.vm.last_successful_job_id, elsewhere.id);
  EXPECT_EQ(after.vm.last_status_change, now());
}

TEST_F(CatalogueVms, AListKnowsWhatTheProofsOfTheNewestBackupSay) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  const Job last = backup(vm, BackupType::incremental, 2);
  const auto prove = [&](const JobDisk& disk, VerificationResult result) {
    ImageVerification proof;
    proof.image_id = disk.image_id;
    proof.verified_at = tick();
    proof.result = result;
    catalogue().verifications.put(proof);
    return proof.verified_at;
  };
  const auto listed = [&] { return catalogue().vms.listed().front(); };
  const Time first = prove(last.disks[0], VerificationResult::sound);
  EXPECT_EQ(listed().last_point->verification, "") << "one disk of two";
  EXPECT_FALSE(listed().last_point->verified_at);
  prove(last.disks[1], VerificationResult::without_manifest);
  EXPECT_EQ(listed().last_point->verification, "without_manifest");
  EXPECT_EQ(listed().last_point->verified_at, first);
  prove(last.disks[1], VerificationResult::sound);
  EXPECT_EQ(listed().last_point->verification, "sound");
  prove(full.disks[0], VerificationResult::damaged);
  EXPECT_EQ(listed().last_point->verification, "sound");
  EXPECT_EQ(listed().damaged_points, 1u);
  prove(last.disks[0], VerificationResult::damaged);
  EXPECT_EQ(listed().last_point->verification, "damaged");
  EXPECT_EQ(listed().damaged_points, 2u);
}

TEST_F(CatalogueVms, CredentialsAreKeptRemovedOrReplaced) {
  PutVmContext request = registration("a");
  request.credentials.kind = CredentialsChange::Kind::inline_secret;
  request.credentials.username = "root";
  request.credentials.password = "the password";
  catalogue().vms.put(request, now());
  EXPECT_EQ(catalogue().vms.find("a")->credentials.kind, CredentialsRef::Kind::inline_secret);
  catalogue().vms.put(registration("a"), now());
  EXPECT_EQ(catalogue().vms.find("a")->credentials.kind, CredentialsRef::Kind::inline_secret);
  request.credentials = {CredentialsChange::Kind::reference, "vc1", "", ""};
  catalogue().vms.put(request, now());
  EXPECT_EQ(catalogue().vms.find("a")->credentials.ref, "vc1");
  request.credentials = {CredentialsChange::Kind::remove, "", "", ""};
  catalogue().vms.put(request, now());
  EXPECT_EQ(catalogue().vms.find("a")->credentials, CredentialsRef{});
}

TEST_F(CatalogueVms, NoPasswordEverReachesTheFile) {
  PutVmContext request = registration("a");
  request.credentials.kind = CredentialsChange::Kind::inline_secret;
  request.credentials.username = "the-user-name";
  request.credentials.password = "the-password";
  catalogue().vms.put(request, now());
  for (const std::string& suffix : {std::string(), std::string("-wal")}) {
    std::ifstream file(path() + suffix, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    EXPECT_EQ(bytes.find("the-password"), std::string::npos);
    EXPECT_EQ(bytes.find("the-user-name"), std::string::npos);
  }
}

TEST_F(CatalogueVms, MalformedRegistrationsAreRefused) {
  const auto refused_put = [&](auto change) {
    PutVmContext request = registration("a");
    change(request);
    return refused([&] { catalogue().vms.put(request, now()); });
  };
  const std::string invalid = refused_put([](PutVmContext& r) { r.vm_name = ""; });
  EXPECT_EQ(invalid, "invalid_vm_context");
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.vm_name = "a\nb"; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.vm_name = std::string(256, 'a'); }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.vm_path = "DC1/vm/a"; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.vcenter_host = ""; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.disks.clear(); }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.disks[0].disk_id = "2000"; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.disks[1].disk_id = r.disks[0].disk_id; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.disks[0].capacity_bytes = 0; }), invalid);
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.disks[0].capacity_bytes = 513; }), invalid);
  const auto disks = [](PutVmContext& r, uint32_t count) {
    r.disks.clear();
    for (uint32_t i = 0; i < count; ++i) {
      r.disks.push_back({.disk_id = "disk-" + std::to_string(i), .capacity_bytes = 512});
    }
  };
  EXPECT_EQ(refused_put([&](PutVmContext& r) { disks(r, 1025); }), invalid);
  EXPECT_TRUE(catalogue().vms.list().empty());
  EXPECT_EQ(refused_put([](PutVmContext& r) { r.vm_name = std::string(255, 'a'); }), "");
  EXPECT_EQ(refused_put([&](PutVmContext& r) { disks(r, 1024); }), "");
}

TEST_F(CatalogueVms, AnotherVcenterNeedsMove) {
  add_vm("a");
  PutVmContext request = registration("a");
  request.vcenter_host = "vc2";
  EXPECT_EQ(refused([&] { catalogue().vms.put(request, now()); }),
            refusals::vm_of_other_vcenter("vc1").code);
  request.move = true;
  EXPECT_FALSE(catalogue().vms.put(request, now()));
  EXPECT_EQ(catalogue().vms.find("a")->vcenter_host, "vc2");
}

TEST_F(CatalogueVms, DisksCannotChangeWhileABackupRuns) {
  start(add_vm("a"), BackupType::full);
  const std::string running = refusals::vm_backup_running("").code;
  EXPECT_EQ(refused([&] { catalogue().vms.put(registration("a", {2000}), now()); }), running);
  PutVmContext larger = registration("a");
  larger.disks[0].capacity_bytes *= 2;
  EXPECT_EQ(refused([&] { catalogue().vms.put(larger, now()); }), running);
  PutVmContext same = registration("a");
  same.power_state = "poweredOff";
  EXPECT_EQ(refused([&] { catalogue().vms.put(same, now()); }), "");
}

TEST_F(CatalogueVms, ARequestMeansTheRegisteredNameElseTheOnlyInventoryName) {
  add_vm("web");
  PutVmContext second = registration("web on vc2");
  second.vm_path = "/DC2/vm/web";
  second.vcenter_host = "vc2";
  catalogue().vms.put(second, now());
  EXPECT_EQ(catalogue().vms.resolve("web").vm_name, "web");
  EXPECT_EQ(catalogue().vms.resolve("web on vc2").vm_name, "web on vc2");
  EXPECT_EQ(refused([&] { catalogue().vms.resolve("nobody"); }), "vm_not_found");
  PutVmContext third = registration("db 1");
  third.vm_path = "/DC1/vm/db";
  catalogue().vms.put(third, now());
  EXPECT_EQ(catalogue().vms.resolve("db").vm_name, "db 1");
  third.vm_name = "db 2";
  third.vm_path = "/DC1/vm/folder/db";
  catalogue().vms.put(third, now());
  EXPECT_EQ(refused([&] { catalogue().vms.resolve("db"); }), "vm_ambiguous");
}

TEST_F(CatalogueVms, TheClientsNameMeansRegisteredAndInventoryNamesAlike) {
  add_vm("web");
  PutVmContext second = registration("web on vc2");
  second.vm_path = "/DC2/vm/web";
  catalogue().vms.put(second, now());
  EXPECT_EQ(catalogue().vms.named("web").size(), 2u);
  EXPECT_EQ(catalogue().vms.named("web on vc2").size(), 1u);
  EXPECT_TRUE(catalogue().vms.named("nobody").empty());
  ASSERT_EQ(catalogue().vms.at_path("/DC2/vm/web").size(), 1u);
  EXPECT_EQ(catalogue().vms.at_path("/DC2/vm/web")[0].vm_name, "web on vc2");
  EXPECT_EQ(catalogue().vms.at_path("/elsewhere/web").size(), 2u);
}

TEST_F(CatalogueVms, A22AnEqualSafeNameGetsALongerDigest) {
  // The second VM is named as the first one's safe name.
  EXPECT_EQ(add_vm("Web Server 01").safe_name, "Web_Server_01-2fd50c");
  const Vm vm = add_vm("Web_Server_01-2fd50c");
  EXPECT_EQ(vm.safe_name, safe_name_with_digest("Web_Server_01-2fd50c", 12));
  EXPECT_EQ(vm.context_id, "ctx-" + vm.safe_name + "-20251008-085454");
}

TEST_F(CatalogueVms, AVmWithBackupsStays) {
  const Vm vm = add_vm("a");
  EXPECT_EQ(refused([&] { catalogue().vms.erase("b"); }), refusals::vm_context_not_found("b").code);
  const Job running = start(vm, BackupType::full);
  const std::string has_backups = refusals::vm_has_backups("").code;
  EXPECT_EQ(refused([&] { catalogue().vms.erase("a"); }), has_backups);
  catalogue().jobs.end(running.id, JobState::failed, "broken", tick());
  const Job job = backup(vm, BackupType::full, 1);
  EXPECT_EQ(refused([&] { catalogue().vms.erase("a"); }), has_backups);
  catalogue().jobs.mark_deleting({job.id});
  EXPECT_EQ(refused([&] { catalogue().vms.erase("a"); }), has_backups);
  catalogue().jobs.erase(job.id, now());
  EXPECT_EQ(catalogue().vms.erase("a"), vm.context_id);
  EXPECT_FALSE(catalogue().vms.find("a"));
  EXPECT_FALSE(catalogue().jobs.find(running.id)) << "a failed job's row goes along";
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

TEST_F(CatalogueVms, ADiskThatNoImageCanHoldIsRefusedWithTheLimit) {
  PutVmContext request = registration("a");
  const auto details = [&](uint64_t capacity_bytes) -> std::string {
    request.disks[0].capacity_bytes = capacity_bytes;
    try {
      catalogue().vms.check(request);
      return "";
    } catch (const Refusal& refusal) {
      return refusal.details;
    }
  };
  const uint64_t limit = qcow::virtual_size_max();
  EXPECT_EQ(details(limit), "");
  EXPECT_NE(details(limit + 512).find(std::to_string(limit)), std::string::npos);
  EXPECT_NE(details(uint64_t{1} << 62).find(std::to_string(limit)), std::string::npos);
}

TEST_F(CatalogueVms, TheHistoryOfAVmIsThatOfItsJobs) {
  const Vm vm = add_vm("a");
  const Job failed = start(vm, BackupType::full);
  EXPECT_EQ(catalogue().vms.find("a")->current_job_id, failed.id);
  EXPECT_EQ(catalogue().vms.find("a")->current_status, "discovered");
  catalogue().jobs.end(failed.id, JobState::failed, "broken", tick());
  EXPECT_EQ(catalogue().vms.find("a")->current_status, "failed");
  const Job good = backup(vm, BackupType::full, 1);
  const Vm after = catalogue().vms.find("a").value();
  EXPECT_EQ(after.current_job_id, "");
  EXPECT_EQ(after.current_status, "completed");
  EXPECT_EQ(after.total_jobs_run, 2u);
  EXPECT_EQ(after.successful_jobs, 1u);
  EXPECT_EQ(after.failed_jobs, 1u);
  EXPECT_EQ(after.last_successful_job_id, good.id);
  EXPECT_EQ(after.first_job_at, failed.created_at);
  EXPECT_EQ(after.last_job_at, good.created_at);
  EXPECT_EQ(after.last_status_change, good.completed_at);
  EXPECT_EQ(after.disks[1].change_id, change_id(1, 1));
}

TEST_F(CatalogueVms, TheNewestGoodAndTheNewestVerifiedBackupHaveTheirTimes) {
  const Vm vm = add_vm("pgtest1");
  const auto now_of = [&] { return catalogue().vms.list_ages().at(0); };
  EXPECT_EQ(now_of().last_good_at, std::nullopt);
  const Job one = backup(vm, BackupType::full, 1), two = backup(vm, BackupType::incremental, 2);
  const auto prove = [&](const JobDisk& disk, VerificationResult result) {
    ImageVerification proof;
    proof.image_id = disk.image_id;
    proof.verified_at = tick();
    proof.result = result;
    catalogue().verifications.put(proof);
  };
  EXPECT_EQ(now_of().last_good_at, two.completed_at);
  EXPECT_EQ(now_of().last_verified_at, std::nullopt);
  prove(one.disks[0], VerificationResult::sound);
  EXPECT_EQ(now_of().last_verified_at, std::nullopt) << "one of its two disks";
  prove(one.disks[1], VerificationResult::sound);
  EXPECT_EQ(now_of().last_verified_at, one.completed_at);
  prove(two.disks[0], VerificationResult::sound);
  prove(two.disks[1], VerificationResult::damaged);
  EXPECT_EQ(now_of().last_good_at, one.completed_at);
  EXPECT_EQ(now_of().last_verified_at, one.completed_at);
  prove(two.disks[1], VerificationResult::without_manifest);
  EXPECT_EQ(now_of().last_good_at, two.completed_at) << "nobody has found it damaged";
  EXPECT_EQ(now_of().last_verified_at, one.completed_at);
  EXPECT_EQ(catalogue().vms.find("pgtest1")->last_good_at, two.completed_at);
  prove(two.disks[1], VerificationResult::sound);
  EXPECT_EQ(now_of().last_verified_at, two.completed_at);
  prove(one.disks[0], VerificationResult::damaged);
  EXPECT_EQ(now_of().last_good_at, std::nullopt) << "the incremental stands on what is damaged";
  EXPECT_EQ(now_of().last_verified_at, std::nullopt);
  const Job anew = backup(vm, BackupType::full, 3);
  EXPECT_EQ(now_of().last_good_at, anew.completed_at) << "a full stands on nothing";
}

TEST_F(CatalogueVms, ABackupIsDistrustedForAsLongAsSomethingBelowItIsDamaged) {
  const Vm vm = add_vm("pgtest1");
  const auto good = [&] { return catalogue().vms.list_ages().at(0).last_good_at; };
  const auto prove = [&](const JobDisk& disk, VerificationResult result) {
    ImageVerification proof;
    proof.image_id = disk.image_id;
    proof.verified_at = tick();
    proof.result = result;
    catalogue().verifications.put(proof);
  };
  const Job one = backup(vm, BackupType::full, 1), two = backup(vm, BackupType::incremental, 2);
  prove(two.disks[1], VerificationResult::damaged);
  const Job three = backup(vm, BackupType::incremental, 3);
  EXPECT_EQ(good(), one.completed_at) << "what is published on damage is distrusted at once";
  prove(one.disks[0], VerificationResult::damaged);
  EXPECT_EQ(good(), std::nullopt);
  prove(two.disks[1], VerificationResult::sound);
  EXPECT_EQ(good(), std::nullopt) << "another disk's image is damaged still";
  prove(one.disks[0], VerificationResult::damaged);
  prove(one.disks[0], VerificationResult::sound);
  EXPECT_EQ(good(), three.completed_at) << "it was repaired";
  EXPECT_EQ(catalogue().vms.list_ages().at(0).last_verified_at, std::nullopt);
  prove(two.disks[0], VerificationResult::damaged);
  catalogue().jobs.mark_deleting({three.id, two.id});
  EXPECT_EQ(good(), one.completed_at);
  catalogue().jobs.erase(three.id, now());
  catalogue().jobs.erase(two.id, now());
  const Job anew = backup(vm, BackupType::incremental, 4);
  EXPECT_EQ(good(), anew.completed_at) << "the damage went with its image";
}

TEST_F(CatalogueVms, ChainsAreAsLongAsTheNewestGenerationOfEachDisk) {
  const Vm vm = add_vm("pgtest1", {2000});
  EXPECT_TRUE(catalogue().points.chain_lengths().empty());
  backup(vm, BackupType::full, 1);
  backup(vm, BackupType::incremental, 2);
  backup(vm, BackupType::incremental, 3);
  EXPECT_EQ(catalogue().points.chain_lengths().at(0).images, 3u);
  backup(vm, BackupType::full, 4);
  const auto lengths = catalogue().points.chain_lengths();
  ASSERT_EQ(lengths.size(), 1u);
  EXPECT_EQ(lengths[0].images, 1u);
  EXPECT_EQ(lengths[0].vm_name, "pgtest1");
  EXPECT_EQ(lengths[0].repository_id, "1");
}

}  // namespace
}  // namespace engine
