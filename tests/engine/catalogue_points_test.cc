// SPDX-License-Identifier: Apache-2.0
#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CataloguePoints : public CatalogueTest {};

TEST_F(CataloguePoints, A8TheParentIsTheNewestPublishedPointOfVmRepositoryAndDisk) {
  add_repository("2");
  const Vm vm = add_vm("a"), other = add_vm("b");
  EXPECT_FALSE(catalogue().points.newest(vm.context_id, "1", 0));
  EXPECT_FALSE(catalogue().points.any(vm.context_id, "1"));
  catalogue().jobs.end(start(vm, BackupType::full).id, JobState::failed, "x", now());
  EXPECT_FALSE(catalogue().points.any(vm.context_id, "1")) << "a failed full is no parent";
  const Job in1 = backup(vm, BackupType::full, 1);
  const Job in2 = backup(vm, BackupType::full, 2, "2");
  backup(other, BackupType::full, 9);
  EXPECT_EQ(catalogue().points.newest(vm.context_id, "1", 0)->job_id, in1.id);
  EXPECT_EQ(catalogue().points.newest(vm.context_id, "2", 0)->job_id, in2.id);
  EXPECT_FALSE(catalogue().points.newest(vm.context_id, "1", 7));
  const Job incremental = backup(vm, BackupType::incremental, 3);
  const Point newest = catalogue().points.newest(vm.context_id, "1", 1).value();
  EXPECT_EQ(newest.job_id, incremental.id);
  EXPECT_EQ(newest.image_path, incremental.disks[1].image_path);
  EXPECT_EQ(newest.change_id, change_id(1, 3));
  EXPECT_EQ(newest.parent_image_id, in1.disks[1].image_id);
  EXPECT_EQ(newest.parent_job_id, in1.id);
  EXPECT_EQ(newest.place.position, 1u);
  EXPECT_EQ(newest.type, BackupType::incremental);
  EXPECT_EQ(newest.capacity_bytes, kGiB);
  EXPECT_EQ(newest.allocated_bytes, 65536u * 3);
  EXPECT_EQ(newest.completed_at, incremental.completed_at);
  EXPECT_EQ(catalogue().points.newest_repository(vm.context_id), "1");
  EXPECT_EQ(catalogue().points.newest_repository("ctx-nobody"), "");
}

TEST_F(CataloguePoints, TheNewestOfEachDiskOfEveryVmIsFound) {
  add_repository("2");
  const Vm vm = add_vm("a"), other = add_vm("b");
  EXPECT_TRUE(catalogue().points.newest_of_each(std::nullopt, 10, 0).empty());
  backup(vm, BackupType::full, 1);
  const Job of_other = backup(other, BackupType::full, 2);
  const Job newest = backup(vm, BackupType::full, 3, "2");
  const auto found = catalogue().points.newest_of_each(std::nullopt, 10, 0);
  ASSERT_EQ(found.size(), 4u) << "two disks each";
  EXPECT_EQ(found[0].job_id, newest.id);
  EXPECT_EQ(found[1].job_id, newest.id);
  EXPECT_EQ(found[2].job_id, of_other.id);
  EXPECT_EQ(found[3].disk_index, 1u);
  EXPECT_EQ(catalogue().points.newest_of_each(1, 10, 0).size(), 2u);
  EXPECT_EQ(catalogue().points.newest_of_each(std::nullopt, 1, 3).at(0).job_id, of_other.id);
}

TEST_F(CataloguePoints, TheNewestIsTheLastOfItsChainWhateverTheClockSays) {
  const Vm vm = add_vm("a");
  backup(vm, BackupType::full, 1);
  tick(-5000);
  const Job after = backup(vm, BackupType::incremental, 2);
  EXPECT_EQ(catalogue().points.newest_of("a", 0)->job_id, after.id);
  EXPECT_EQ(catalogue().points.newest_of_each(0, 10, 0).at(0).job_id, after.id);
  add_repository("2");
  const Job elsewhere = backup(vm, BackupType::full, 3, "2");
  EXPECT_EQ(catalogue().points.newest_of("a", 0)->job_id, elsewhere.id);
  tick(-5000);
  const Job earlier = backup(vm, BackupType::incremental, 4, "2");
  EXPECT_EQ(catalogue().points.newest_of("a", 1)->job_id, after.id) << "by the clock, of two";
  EXPECT_EQ(catalogue().points.newest_until("a", 1, now())->job_id, earlier.id);
  EXPECT_FALSE(catalogue().points.newest_of("a", 2));
}

TEST_F(CataloguePoints, ADiskThatWasRemovedIsNotAmongTheNewest) {
  const Vm vm = add_vm("a");
  backup(vm, BackupType::full, 1);
  catalogue().vms.put(registration("a", {2000}), tick());
  ASSERT_EQ(catalogue().points.newest_of_each(std::nullopt, 10, 0).size(), 1u);
  EXPECT_EQ(catalogue().points.newest_of_each(std::nullopt, 10, 0)[0].disk_index, 0u);
  EXPECT_TRUE(catalogue().points.newest_of("a", 1)) << "by its own name";
}

TEST_F(CataloguePoints, A28AChainIsOrderedFromItsFullToItsLatest) {
  const Vm vm = add_vm("a");
  const Job full = backup(vm, BackupType::full, 1);
  const Job one = backup(vm, BackupType::incremental, 2);
  const Job two = backup(vm, BackupType::incremental, 3);
  for (uint32_t disk = 0; disk < 2; ++disk) {
    const Chain chain = catalogue().points.chain(vm.context_id, "1", disk, std::nullopt).value();
    EXPECT_EQ(chain.id, chain_name(vm.context_id, disk, "1", 1));
    ASSERT_EQ(chain.points.size(), 3u);
    EXPECT_EQ(chain.points[0].job_id, full.id);
    EXPECT_EQ(chain.points[1].job_id, one.id);
    EXPECT_EQ(chain.points[2].job_id, two.id);
    EXPECT_EQ(chain.points[2].parent_image_id, chain.points[1].image_id);
    EXPECT_EQ(chain.created_at, full.completed_at);
    EXPECT_EQ(chain.updated_at, two.completed_at);
  }
}

TEST_F(CataloguePoints, A29ASecondFullOpensAGenerationAndTheOldOneStaysAddressable) {
  const Vm vm = add_vm("a");
  backup(vm, BackupType::full, 1);
  backup(vm, BackupType::incremental, 2);
  const Job second = backup(vm, BackupType::full, 3);
  const Job last = backup(vm, BackupType::incremental, 4);
  EXPECT_EQ(last.disks[0].parent_image_id, second.disks[0].image_id);
  const Chain newest = catalogue().points.chain(vm.context_id, "1", 0, std::nullopt).value();
  EXPECT_EQ(newest.generation, 2u);
  EXPECT_EQ(newest.points.size(), 2u);
  EXPECT_EQ(catalogue().points.chain(vm.context_id, "1", 0, 1)->points.size(), 2u);
  EXPECT_FALSE(catalogue().points.chain(vm.context_id, "1", 0, 3));
  EXPECT_EQ(catalogue().points.chains(vm.context_id, "1", 0).size(), 2u);
  EXPECT_EQ(catalogue().points.list("1").size(), 8u);
  EXPECT_EQ(catalogue().points.of_job(last.id).size(), 2u);
  EXPECT_EQ(catalogue().points.find(last.disks[1].image_id)->place.generation, 2u);
}

TEST_F(CataloguePoints, AnAddedDiskStartsItsOwnFirstGeneration) {
  const Vm before = add_vm("a", {2000});
  backup(before, BackupType::full, 1);
  backup(before, BackupType::full, 2);
  catalogue().vms.put(registration("a", {2000, 2001}), tick());
  const Job job = backup(catalogue().vms.find("a").value(), BackupType::incremental, 3);
  EXPECT_EQ(job.disks[0].type, BackupType::incremental);
  EXPECT_EQ(job.disks[0].place.generation, 2u);
  EXPECT_EQ(job.disks[1].type, BackupType::full);
  EXPECT_EQ(job.disks[1].place.generation, 1u);
  EXPECT_EQ(job.disks[1].place.position, 0u);
}

TEST_F(CataloguePoints, ANewPointGoesBehindItsParentOrOpensAGeneration) {
  const Vm vm = add_vm("a");
  EXPECT_EQ(catalogue().points.place(vm.context_id, "1", 0, ""), (ChainPlace{1, 0}));
  const Job full = backup(vm, BackupType::full, 1);
  EXPECT_EQ(catalogue().points.place(vm.context_id, "1", 0, ""), (ChainPlace{2, 0}));
  EXPECT_EQ(catalogue().points.place(vm.context_id, "1", 0, full.disks[0].image_id),
            (ChainPlace{1, 1}));
  EXPECT_THROW(catalogue().points.place(vm.context_id, "1", 0, "unpublished"), std::logic_error);
}

TEST_F(CataloguePoints, AChainNeverForks) {
  const Vm vm = add_vm("a", {2000});
  const Job full = backup(vm, BackupType::full, 1);
  backup(vm, BackupType::incremental, 2);
  Job fork = start(vm, BackupType::incremental);
  seal_all(fork, 3);
  // As a defect elsewhere would decide it: on the full, where a point is already.
  catalogue().jobs.decide(fork.id, {{0, 1, 1, "sidecar"}}, tick());
  EXPECT_ANY_THROW(catalogue().jobs.publish(fork.id));
  EXPECT_EQ(catalogue().jobs.find(fork.id)->state, JobState::finalizing);
  EXPECT_EQ(catalogue().points.chain(vm.context_id, "1", 0, 1)->points.size(), 2u);
  EXPECT_EQ(catalogue().points.chain(vm.context_id, "1", 0, 1)->points[0].job_id, full.id);
}

TEST_F(CataloguePoints, A21TheNewestUsableChangeIdOfEachDiskIsTold) {
  add_repository("2");
  const Vm vm = add_vm("a");
  EXPECT_TRUE(catalogue().points.change_ids(vm.context_id, "").empty());
  const Job in1 = backup(vm, BackupType::full, 1);
  const Job in2 = backup(vm, BackupType::full, 2, "2");
  using Newest = std::vector<NewestChangeId>;
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, ""),
            (Newest{{0, 2000, change_id(0, 2), in2.id}, {1, 2001, change_id(1, 2), in2.id}}));
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, "1"),
            (Newest{{0, 2000, change_id(0, 1), in1.id}, {1, 2001, change_id(1, 1), in1.id}}));
  tick();
  const Job unusable = start(vm, BackupType::full);
  for (const JobDisk& disk : unusable.disks) {
    catalogue().jobs.set_sealing(unusable.id, disk.index);
    SealRecord record;
    record.change_id = disk.index == 0 ? "no slash" : "good/1";
    catalogue().jobs.set_sealed(unusable.id, disk.index, record, now());
  }
  decide(unusable.id);
  catalogue().jobs.publish(unusable.id);
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, "")[0].change_id, change_id(0, 2));
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, "")[1].change_id, "good/1");
  EXPECT_EQ(catalogue().vms.find("a")->disks[0].change_id, change_id(0, 2));
}

TEST_F(CataloguePoints, ThoseWithoutAProofComeFirstThenThoseWithTheOldest) {
  const Vm vm = add_vm("a", {2000});
  std::vector<std::string> images;
  for (uint32_t number = 1; number <= 4; ++number) {
    const BackupType type = number == 1 ? BackupType::full : BackupType::incremental;
    images.push_back(backup(vm, type, number).disks[0].image_id);
  }
  const auto prove = [&](size_t number, VerificationResult result) {
    ImageVerification proof;
    proof.image_id = images[number];
    proof.verified_at = tick();
    proof.result = result;
    catalogue().verifications.put(proof);
    return proof.verified_at;
  };
  prove(2, VerificationResult::sound);
  const Time second = prove(0, VerificationResult::damaged);
  prove(3, VerificationResult::sound);
  const auto unproven = [&](Time until) {
    std::vector<std::string> ids;
    for (const Point& point : catalogue().points.unproven_since(until))
      ids.push_back(point.image_id);
    return ids;
  };
  using Ids = std::vector<std::string>;
  EXPECT_EQ(unproven(now()), (Ids{images[1], images[2], images[0], images[3]}));
  EXPECT_EQ(unproven(second), (Ids{images[1], images[2], images[0]}));
  EXPECT_EQ(unproven(Time{}), (Ids{images[1]}));
  EXPECT_EQ(catalogue().points.count_by_verification(),
            (std::map<std::string, uint64_t>{
                {"never", 1}, {"sound", 2}, {"damaged", 1}, {"without_manifest", 0}}));
  const Point newest = catalogue().points.find(images[3]).value();
  catalogue().jobs.mark_deleting({newest.job_id});
  prove(1, VerificationResult::without_manifest);
  EXPECT_EQ(catalogue().points.count_by_verification(),
            (std::map<std::string, uint64_t>{
                {"never", 0}, {"sound", 1}, {"damaged", 1}, {"without_manifest", 1}}))
      << "a point that is being deleted does not count";
  EXPECT_EQ(catalogue().jobs.count_by_state(),
            (std::map<JobState, uint64_t>{{JobState::completed, 3}}));
}

TEST_F(CataloguePoints, A25AChangeIdIsKeptByteForByte) {
  const Vm vm = add_vm("a", {2000});
  const std::string id = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531";
  const Job job = start(vm, BackupType::full);
  catalogue().jobs.set_sealing(job.id, 0);
  SealRecord record;
  record.change_id = id;
  catalogue().jobs.set_sealed(job.id, 0, record, now());
  decide(job.id);
  catalogue().jobs.publish(job.id);
  open();
  EXPECT_EQ(catalogue().points.newest(vm.context_id, "1", 0)->change_id, id);
  EXPECT_EQ(catalogue().points.change_ids(vm.context_id, "")[0].change_id, id);
}

}  // namespace
}  // namespace engine
