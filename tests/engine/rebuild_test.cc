// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/rebuild.h"

#include <algorithm>

#include "engine/repository/chain_file.h"
#include "engine/repository/proof_file.h"
#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

/// A catalogue is filled, its repository's files are written down, then it is lost.
class Rebuild : public CatalogueTest {
 protected:
  Rebuild() : vm_(add_vm("a b")) {
    for (uint32_t number = 1; number <= 4; ++number) {
      const BackupType type =
          number == 1 || number == 3 ? BackupType::full : BackupType::incremental;
      jobs_.push_back(backup(vm_, type, number));
      write_down(jobs_.back());
    }
  }

  void write_down(const Job& job) {
    for (const JobDisk& disk : job.disks) {
      FoundImage image;
      image.image_path = disk.image_path;
      image.file_bytes = disk.file_bytes;
      image.allocated_bytes = disk.allocated_bytes;
      image.sidecar = encode_sidecar(sidecar_of(job, disk, job.completed_at.value()));
      images_.push_back(image);
    }
  }
  FoundImage& image(size_t job, size_t disk) { return images_.at(job * 2 + disk); }

  std::string image_id(size_t job, size_t disk) { return jobs_.at(job).disks.at(disk).image_id; }

  RebuildPlan plan() { return plan_rebuild("1", {encode_vm_file(vm_)}, images_); }
  std::vector<std::string> accepted() {
    std::vector<std::string> ids;
    for (const Job& job : plan().jobs) ids.push_back(job.id);
    return ids;
  }
  std::vector<std::string> ids(const std::vector<size_t>& numbers) {
    std::vector<std::string> ids;
    for (const size_t number : numbers) ids.push_back(jobs_.at(number).id);
    return ids;
  }
  /// An empty catalogue with repository "1".
  void lose_catalogue() {
    close();
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path() + suffix);
    open();
    add_repository("1");
  }

  Vm vm_;
  std::vector<Job> jobs_;
  std::vector<FoundImage> images_;
};

TEST_F(Rebuild, TheCatalogueComesBackFromTheFiles) {
  const std::vector<Point> before = catalogue().points.list("1");
  std::reverse(images_.begin(), images_.end());
  const RebuildPlan files = plan();
  EXPECT_TRUE(files.problems.empty());
  lose_catalogue();
  EXPECT_TRUE(catalogue().adopt(files).empty());
  const std::vector<Point> after = catalogue().points.list("1");
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].image_id, before[i].image_id);
    EXPECT_EQ(after[i].image_path, before[i].image_path);
    EXPECT_EQ(after[i].job_id, before[i].job_id);
    EXPECT_EQ(after[i].context_id, before[i].context_id);
    EXPECT_EQ(after[i].change_id, before[i].change_id);
    EXPECT_EQ(after[i].parent_image_id, before[i].parent_image_id);
    EXPECT_EQ(after[i].parent_job_id, before[i].parent_job_id);
    EXPECT_EQ(after[i].place.generation, before[i].place.generation);
    EXPECT_EQ(after[i].place.position, before[i].place.position);
    EXPECT_EQ(after[i].completed_at, before[i].completed_at);
    EXPECT_EQ(after[i].capacity_bytes, before[i].capacity_bytes);
  }
  const Vm vm = catalogue().vms.find("a b").value();
  EXPECT_EQ(vm.context_id, vm_.context_id);
  EXPECT_EQ(vm.safe_name, vm_.safe_name);
  EXPECT_EQ(vm.disks[1].index, 1u);
  EXPECT_EQ(vm.successful_jobs, 4u);
  EXPECT_EQ(vm.last_successful_job_id, jobs_.back().id);
  EXPECT_EQ(catalogue().jobs.find(jobs_[0].id)->disks[1].export_name,
            jobs_[0].disks[1].export_name);
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

TEST_F(Rebuild, BackupsGoOnAfterwards) {
  const RebuildPlan files = plan();
  lose_catalogue();
  catalogue().adopt(files);
  const Job next = backup(catalogue().vms.find("a b").value(), BackupType::incremental, 5);
  EXPECT_EQ(next.disks[0].parent_image_id, jobs_.back().disks[0].image_id);
  EXPECT_EQ(next.disks[0].place.generation, 2u);
  EXPECT_EQ(next.disks[0].place.position, 2u);
}

TEST_F(Rebuild, NamesThatWereFoundAreNotGivenOutAgain) {
  const RebuildPlan files = plan();
  lose_catalogue();
  catalogue().adopt(files);
  Job job = jobs_.back();
  job.type = BackupType::full;
  for (JobDisk& disk : job.disks) {
    disk.type = BackupType::full;
    disk.parent_image_id.clear();
  }
  EXPECT_EQ(catalogue().jobs.insert(job, "/backup/1").id, jobs_.back().id + "-2");
}

TEST_F(Rebuild, AdoptingTwiceChangesNothing) {
  EXPECT_TRUE(catalogue().adopt(plan()).empty());
  EXPECT_EQ(catalogue().points.list("1").size(), 8u);
  EXPECT_EQ(catalogue().vms.find("a b")->total_jobs_run, 4u);
}

TEST_F(Rebuild, AJobIsAcceptedOnlyAsAWhole) {
  images_.erase(images_.begin() + 7);  // disk 1 of the last job
  EXPECT_EQ(accepted(), ids({0, 1, 2}));
  ASSERT_EQ(plan().problems.size(), 1u);
  EXPECT_NE(plan().problems[0].find(jobs_[3].disks[1].image_id + " is missing"), std::string::npos);
}

TEST_F(Rebuild, WithoutItsParentAJobIsNotAccepted) {
  images_.erase(images_.begin());  // disk 0 of the first full
  EXPECT_EQ(accepted(), ids({2, 3}));
  EXPECT_EQ(plan().problems.size(), 2u);
}

TEST_F(Rebuild, AFileOfAnotherLengthOrNameIsNotAccepted) {
  image(3, 0).file_bytes += 512;
  EXPECT_EQ(accepted(), ids({0, 1, 2}));
  image(3, 0).file_bytes -= 512;
  image(3, 0).image_path = "/backup/1/x/disk-0/renamed.qcow2";
  EXPECT_EQ(accepted(), ids({0, 1, 2}));
}

TEST_F(Rebuild, AnUnreadableOrMissingSidecarIsReported) {
  image(3, 0).sidecar = "{";
  image(2, 0).sidecar = "";
  EXPECT_EQ(accepted(), ids({0, 1}));
  EXPECT_GE(plan().problems.size(), 4u) << "two files, two jobs";
}

TEST_F(Rebuild, AVmWithoutItsFileIsMadeUpFromTheSidecars) {
  const RebuildPlan files = plan_rebuild("1", {"not JSON"}, images_);
  EXPECT_EQ(files.problems.size(), 1u);
  ASSERT_EQ(files.vms.size(), 1u);
  EXPECT_EQ(files.vms[0].vm_name, "a b");
  EXPECT_EQ(files.vms[0].context_id, vm_.context_id);
  EXPECT_EQ(files.vms[0].safe_name, vm_.safe_name);
  ASSERT_EQ(files.vms[0].disks.size(), 2u);
  EXPECT_EQ(files.vms[0].disks[1].key, 2001u);
  lose_catalogue();
  EXPECT_TRUE(catalogue().adopt(files).empty());
  EXPECT_EQ(catalogue().points.list("1").size(), 8u);
}

TEST_F(Rebuild, AVmWhoseNameIsTakenIsLeftOutWithItsJobs) {
  const RebuildPlan files = plan();
  lose_catalogue();
  tick(1000);
  add_vm("a b");
  EXPECT_EQ(catalogue().adopt(files).size(), 5u);
  EXPECT_TRUE(catalogue().points.list("1").empty());
}

TEST_F(Rebuild, AClockThatWasSetBackLosesNoPoint) {
  images_.clear();
  for (size_t number = 0; number < jobs_.size(); ++number) {
    const auto back = std::chrono::hours(number);
    jobs_[number].created_at -= back;
    *jobs_[number].completed_at -= back;
    write_down(jobs_[number]);
  }
  EXPECT_EQ(accepted(), ids({0, 1, 2, 3}));
  EXPECT_TRUE(plan().problems.empty());
  const RebuildPlan files = plan();
  lose_catalogue();
  EXPECT_TRUE(catalogue().adopt(files).empty());
  EXPECT_EQ(catalogue().points.list("1").size(), 8u);
  EXPECT_EQ(catalogue().points.newest(vm_.context_id, "1", 0)->job_id, jobs_.back().id);
}

TEST_F(Rebuild, ANameThatVarveCannotHaveMadeIsNotAccepted) {
  const std::string good = image(3, 0).sidecar;
  const auto accepts = [&](const std::string& from, const std::string& to) {
    image(3, 0).sidecar = good;
    for (size_t at = 0; (at = image(3, 0).sidecar.find(from, at)) != std::string::npos;) {
      image(3, 0).sidecar.replace(at, from.size(), to);
      at += to.size();
    }
    return accepted().size() == 4;
  };
  EXPECT_TRUE(accepts("none of it", ""));
  EXPECT_FALSE(accepts(vm_.context_id, "../../../tmp/x"));
  EXPECT_FALSE(accepts(vm_.context_id, "ctx-../../../tmp/x-20251006-203401"));
  EXPECT_FALSE(accepts("\"backup_id\":\"backup-", "\"backup_id\":\"backup-../"));
  EXPECT_FALSE(accepts("\"job_id\":\"backup-", "\"job_id\":\"backup-/"));
  EXPECT_FALSE(accepts("\"backing_file\":\"", "\"backing_file\":\"../"));
  EXPECT_FALSE(accepts("\"disk_id\":0", "\"disk_id\":4294967296"));
  Vm vm = vm_;
  vm.context_id = "ctx-../../../tmp/x-20251006-203401";
  const RebuildPlan files = plan_rebuild("1", {encode_vm_file(vm)}, {});
  EXPECT_TRUE(files.vms.empty());
  EXPECT_EQ(files.problems.size(), 1u);
}

TEST_F(Rebuild, TheLastProofOfEachImageComesBack) {
  ImageVerification damaged;
  damaged.image_id = jobs_[1].disks[0].image_id;
  damaged.verified_at = now();
  damaged.result = VerificationResult::damaged;
  damaged.data_bytes = 196608;
  damaged.zero_bytes = 65536;
  damaged.damaged_bytes = 65536;
  damaged.problem = "its tables have \"errors\", sha256";
  damaged.damaged = {{131072, 65536, 327680, "reads differently"}};
  image(1, 0).proof = encode_proof_file(damaged);
  ImageVerification sound;
  sound.image_id = jobs_[2].disks[1].image_id;
  sound.verified_at = now();
  image(2, 1).proof = encode_proof_file(sound);
  const RebuildPlan files = plan();
  EXPECT_TRUE(files.problems.empty());
  lose_catalogue();
  catalogue().adopt(files);
  auto found = catalogue().verifications.find(damaged.image_id).value();
  EXPECT_EQ(std::exchange(found.job_id, ""), jobs_[1].id);
  found.vm_name.clear();
  EXPECT_EQ(found, damaged);
  EXPECT_EQ(catalogue().points.find(sound.image_id)->verification, "sound");
  EXPECT_EQ(catalogue().points.find(image_id(0, 0))->verification, "");
  // What the catalogue knows better stays.
  sound.verified_at = tick();
  sound.result = VerificationResult::damaged;
  catalogue().verifications.put(sound);
  catalogue().adopt(files);
  EXPECT_EQ(catalogue().points.find(sound.image_id)->verification, "damaged");
}

TEST_F(Rebuild, AProofThatIsDamagedOrOfAnotherImageIsReportedAndNotBelieved) {
  ImageVerification proof;
  proof.image_id = image_id(0, 0);
  proof.verified_at = now();
  const std::string good = encode_proof_file(proof);
  std::vector<std::string> bad = {"x", "{}", good.substr(0, good.size() - 1), good + "x",
                                  good.substr(good.find(','))};
  for (size_t at = 0; at < good.size(); ++at) {
    bad.push_back(good);
    bad.back()[at] ^= 1;
  }
  proof.image_id = image_id(1, 0);
  bad.push_back(encode_proof_file(proof));
  for (const std::string& text : bad) {
    image(0, 0).proof = text;
    const RebuildPlan files = plan();
    EXPECT_TRUE(files.proofs.empty()) << text;
    ASSERT_EQ(files.problems.size(), 1u) << text;
    EXPECT_NE(files.problems[0].find(image_id(0, 0) + ".qcow2.verified"), std::string::npos);
    EXPECT_EQ(files.jobs.size(), 4u);
  }
}

TEST_F(Rebuild, ADirectoryMayComeBackUnderAnotherId) {
  add_repository("9");
  const RebuildPlan files = plan_rebuild("9", {encode_vm_file(vm_)}, images_);
  lose_catalogue();
  add_repository("9");
  EXPECT_TRUE(catalogue().adopt(files).empty());
  EXPECT_TRUE(catalogue().points.any(vm_.context_id, "9"));
}

/// The catalogue as it was at some moment of a later backup, with the files of after it.
class RebuildOnAnOlderCopy : public Rebuild {
 protected:
  void keep_copy() {
    close();
    std::filesystem::copy_file(path(), path() + ".older");
    open();
  }
  void come_back_to_copy() {
    close();
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path() + suffix);
    std::filesystem::rename(path() + ".older", path());
    open();
  }
  Job finish(const Job& job) {
    tick(9);
    seal_all(job, 5);
    decide(job.id);
    catalogue().jobs.publish(job.id);
    Job finished = catalogue().jobs.find(job.id).value();
    write_down(finished);
    return finished;
  }
  void expect_newest(const Job& job, size_t points) {
    EXPECT_EQ(catalogue().points.list("1").size(), points);
    EXPECT_EQ(catalogue().points.newest(vm_.context_id, "1", 0)->job_id, job.id);
    EXPECT_EQ(catalogue().jobs.find(job.id)->state, JobState::completed);
    EXPECT_FALSE(catalogue().jobs.active_job(vm_.context_id));
    EXPECT_TRUE(catalogue().integrity_problems().empty());
    const Vm vm = catalogue().vms.find("a b").value();
    EXPECT_EQ(vm.successful_jobs, points / 2);
    EXPECT_EQ(vm.failed_jobs, 0u);
  }
};

TEST_F(RebuildOnAnOlderCopy, AJobThatWasRunningWhenItWasMadeComesBackComplete) {
  tick(100);
  Job job = start(vm_, BackupType::incremental);
  catalogue().jobs.set_running(job.id, tick());
  keep_copy();
  job = finish(job);
  come_back_to_copy();
  EXPECT_TRUE(catalogue().adopt(plan()).empty());
  expect_newest(job, 10);
  EXPECT_EQ(catalogue().vms.find("a b")->total_jobs_run, 5u);
}

TEST_F(RebuildOnAnOlderCopy, AJobThatTheCopyHasFailedMeanwhileComesBackComplete) {
  tick(100);
  Job job = start(vm_, BackupType::incremental);
  keep_copy();
  job = finish(job);
  come_back_to_copy();
  catalogue().jobs.end(job.id, JobState::failed, "server restarted during backup", now());
  EXPECT_TRUE(catalogue().adopt(plan()).empty());
  expect_newest(job, 10);
}

TEST_F(RebuildOnAnOlderCopy, AJobThatResumedOneThatIsKeptInItHasTheImages) {
  tick(100);
  const Job kept = start(vm_, BackupType::incremental);
  catalogue().jobs.end(kept.id, JobState::failed, "cut off", tick(), true);
  keep_copy();
  Job next = kept;
  next.resumes = kept.id;
  next.created_at = tick();
  next = finish(catalogue().jobs.insert(next, "/backup/1"));
  ASSERT_EQ(next.disks[0].image_path, kept.disks[0].image_path);
  come_back_to_copy();
  EXPECT_TRUE(catalogue().adopt(plan()).empty());
  EXPECT_EQ(catalogue().points.newest(vm_.context_id, "1", 0)->job_id, next.id);
  EXPECT_FALSE(catalogue().jobs.find(kept.id)->kept);
  EXPECT_TRUE(catalogue().integrity_problems().empty());
}

TEST_F(RebuildOnAnOlderCopy, ADiskThatWasAddedSinceComesBackWithItsPoints) {
  keep_copy();
  catalogue().vms.put(registration("a b", {2000, 2001, 2002}), tick(100));
  vm_ = catalogue().vms.find("a b").value();
  const Job job = finish(start(vm_, BackupType::full));
  come_back_to_copy();
  EXPECT_TRUE(catalogue().adopt(plan()).empty());
  EXPECT_EQ(catalogue().points.newest(vm_.context_id, "1", 2)->job_id, job.id);
  const Vm vm = catalogue().vms.find("a b").value();
  ASSERT_EQ(vm.disks.size(), 3u);
  EXPECT_EQ(vm.disks[2].key, 2002u);
}

TEST_F(RebuildOnAnOlderCopy, WhatContradictsItIsLeftOutAndTheRestComesBack) {
  const RebuildPlan with_first = plan();
  Job other = jobs_.back();  // the same place in the chain, by another job
  other.id += "-other";
  for (JobDisk& disk : other.disks) {
    disk.image_id += "-other";
    disk.export_name += "-other";
    disk.image_uuid.clear();
  }
  const Job next = backup(vm_, BackupType::full, 6);
  RebuildPlan files = with_first;
  files.jobs = {other, next};
  lose_catalogue();
  catalogue().adopt(with_first);
  const std::vector<std::string> left_out = catalogue().adopt(files);
  ASSERT_EQ(left_out.size(), 1u);
  EXPECT_NE(left_out[0].find("job " + other.id + ": the catalogue, an older copy perhaps"),
            std::string::npos)
      << left_out[0];
  EXPECT_FALSE(catalogue().jobs.find(other.id)) << "nothing of half a job";
  EXPECT_EQ(catalogue().points.newest(vm_.context_id, "1", 0)->job_id, next.id);
}

}  // namespace
}  // namespace engine
