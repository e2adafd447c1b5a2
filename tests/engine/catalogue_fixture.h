// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "engine/catalogue/catalogue.h"
#include "engine/repository/sidecar.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "engine/values/time_text.h"

namespace engine {

inline constexpr uint64_t kGiB = uint64_t{1} << 30;

/// "52 66 .../<n>": the form of VMware's change ids; `disk` tells the disks apart.
inline std::string change_id(uint32_t disk, uint32_t number) {
  return "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7" + std::to_string(disk) + "/" +
         std::to_string(number);
}

/// The refusal's code that `call` throws; "" when it throws none.
template <typename Call>
std::string refused(const Call& call) {
  try {
    call();
    return "";
  } catch (const Refusal& refusal) {
    return refusal.code;
  }
}

/// A catalogue in its own directory, with repository "1", and the verbs of a backup.
class CatalogueTest : public testing::Test {
 protected:
  CatalogueTest()
      : directory_(std::filesystem::temp_directory_path() /
                   ("varve-catalogue-" + std::to_string(getpid()) + "-" +
                    testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    open();
    add_repository("1");
  }
  ~CatalogueTest() override { std::filesystem::remove_all(directory_); }

  std::string path() const { return (directory_ / "catalogue.db").string(); }
  Catalogue& catalogue() { return *catalogue_; }

  /// Closes the catalogue and opens it again, as a restart does.
  void open() {
    catalogue_.reset();
    catalogue_ = std::make_unique<Catalogue>(path());
  }
  void close() { catalogue_.reset(); }

  Time now() const { return now_; }
  Time tick(int64_t seconds = 1) { return now_ += std::chrono::seconds(seconds); }

  void add_repository(const std::string& id) {
    Repository repository;
    repository.id = repository.name = id;
    repository.directory = "/backup/" + id;
    repository.config_json = R"({"path":"/backup/)" + id + R"("})";
    catalogue().repositories.insert(repository, now_);
  }

  static PutVmContext registration(const std::string& name,
                                   const std::vector<uint32_t>& keys = {2000, 2001}) {
    PutVmContext request;
    request.vm_name = name;
    request.vm_path = "/DC1/vm/" + name;
    request.vcenter_host = "vc1";
    for (const uint32_t key : keys) {
      NewVmDisk disk;
      disk.disk_id = vmware_disk_id(key);
      disk.capacity_bytes = kGiB;
      request.disks.push_back(disk);
    }
    return request;
  }
  Vm add_vm(const std::string& name, const std::vector<uint32_t>& keys = {2000, 2001}) {
    catalogue().vms.put(registration(name, keys), now_);
    return catalogue().vms.find(name).value();
  }

  /// A new job of all disks, each on its newest point when incremental.
  Job start(const Vm& vm, BackupType type, const std::string& repository_id = "1") {
    Job job;
    job.context_id = vm.context_id;
    job.vm_name = vm.vm_name;
    job.vm_path = vm.vm_path;
    job.vcenter_host = vm.vcenter_host;
    job.repository_id = repository_id;
    job.type = type;
    job.created_at = now_;
    for (const VmDisk& vm_disk : vm.disks) {
      JobDisk disk;
      disk.key = vm_disk.key;
      disk.index = vm_disk.index;
      disk.capacity_bytes = vm_disk.capacity_bytes;
      if (type == BackupType::incremental) {
        if (const auto parent =
                catalogue().points.newest(vm.context_id, repository_id, disk.index)) {
          disk.type = BackupType::incremental;
          disk.parent_image_id = parent->image_id;
          disk.parent_job_id = parent->job_id;
          disk.parent_change_id = parent->change_id;
        }
      }
      job.disks.push_back(disk);
    }
    return catalogue().jobs.insert(job, "/backup/" + repository_id);
  }

  /// Seals every disk with change ids that end in `number`.
  void seal_all(const Job& job, uint32_t number) {
    for (const JobDisk& disk : job.disks) {
      catalogue().jobs.set_transferring(job.id, disk.index);
      catalogue().jobs.set_sealing(job.id, disk.index);
      SealRecord record;
      record.change_id = change_id(disk.index, number);
      record.counters.bytes_received = 1000 + disk.index;
      record.counters.bytes_stored = 500;
      record.file_bytes = 65536 * 5;
      record.allocated_bytes = 65536 * 3;
      catalogue().jobs.set_sealed(job.id, disk.index, record, now_);
    }
  }

  void decide(const std::string& job_id) {
    const Job job = catalogue().jobs.find(job_id).value();
    std::vector<DiskDecision> decisions;
    for (JobDisk disk : job.disks) {
      disk.place = catalogue().points.place(job.context_id, job.repository_id, disk.index,
                                            disk.parent_image_id);
      decisions.push_back({disk.index, disk.place, encode_sidecar(sidecar_of(job, disk, now_))});
    }
    catalogue().jobs.decide(job_id, decisions, now_);
  }

  /// A whole backup, ten seconds long; its change ids end in `number`.
  Job backup(const Vm& vm, BackupType type, uint32_t number,
             const std::string& repository_id = "1") {
    tick(100);
    const Job job = start(vm, type, repository_id);
    catalogue().jobs.set_running(job.id, tick());
    tick(9);
    seal_all(job, number);
    decide(job.id);
    catalogue().jobs.publish(job.id);
    return catalogue().jobs.find(job.id).value();
  }

 private:
  std::filesystem::path directory_;
  std::unique_ptr<Catalogue> catalogue_;
  Time now_ = from_unix_seconds(1759913694);  // 2025-10-08T08:54:54Z
};

}  // namespace engine
