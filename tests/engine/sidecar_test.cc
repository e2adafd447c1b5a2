// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/sidecar.h"

#include <gtest/gtest.h>

#include "engine/values/time_text.h"

namespace engine {
namespace {

/// The values of kExample.
Sidecar example() {
  Sidecar sidecar;
  sidecar.disk.image_id = "backup-pgtest1-disk0-20251009-085501";
  sidecar.job.context_id = "ctx-pgtest1-20251006-203401";
  sidecar.job.vm_name = "pgtest1";
  sidecar.disk.key = 2000;
  sidecar.disk.type = BackupType::incremental;
  sidecar.disk.parent_image_id = "backup-pgtest1-disk0-20251008-085454";
  sidecar.backing_file = "backup-pgtest1-disk0-20251008-085454.qcow2";
  sidecar.disk.change_id = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5544";
  sidecar.disk.parent_change_id = "52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531";
  sidecar.disk.file_bytes = 47251456;
  sidecar.disk.allocated_bytes = 47255552;
  sidecar.disk.capacity_bytes = 109521666048;
  sidecar.job.created_at = *from_rfc3339("2025-10-09T08:55:01Z");
  sidecar.job.completed_at = *from_rfc3339("2025-10-09T08:57:44Z");
  sidecar.job.vm_path = "/DC1/vm/pgtest1";
  sidecar.job.vcenter_host = "vc1";
  sidecar.job.id = "backup-pgtest1-1760000101";
  sidecar.job_images = {"backup-pgtest1-disk0-20251009-085501",
                        "backup-pgtest1-disk1-20251009-085501"};
  sidecar.job.repository_id = "1";
  sidecar.disk.place.generation = 1;
  sidecar.disk.place.position = 1;
  sidecar.disk.sums_sha256 = std::string(64, 'a');
  sidecar.disk.parent_root = std::string(64, 'b');
  sidecar.disk.counters.bytes_received = 52428800;
  sidecar.disk.counters.bytes_zeroed = 65536;
  sidecar.disk.counters.bytes_elided = 5242880;
  sidecar.disk.counters.bytes_stored = 47185920;
  return sidecar;
}

/// The hash in the image's header is of these bytes.
constexpr const char* kExample =
    R"({"backup_id":"backup-pgtest1-disk0-20251009-085501",)"
    R"("vm_context_id":"ctx-pgtest1-20251006-203401","vm_name":"pgtest1","disk_id":0,)"
    R"("backup_type":"incremental","parent_backup_id":"backup-pgtest1-disk0-20251008-085454",)"
    R"("change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5544",)"
    R"("size_bytes":47251456,"total_bytes":109521666048,"created_at":"2025-10-09T08:55:01Z",)"
    R"("completed_at":"2025-10-09T08:57:44Z",)"
    R"("qcow2_info":{"virtual_size":109521666048,"actual_size":47255552,)"
    R"("backing_file":"backup-pgtest1-disk0-20251008-085454.qcow2","format":"qcow2",)"
    R"("cluster_size":65536,"compressed":false,"encrypted":false,"dirty_flag":false},)"
    R"("metadata":{"vmware_info":{"vmware_vm_id":"","vmware_disk_id":"disk-2000","disk_path":"",)"
    R"("datastore_name":"","change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5544",)"
    R"("cbt_enabled":true},"custom_metadata":{}},)"
    R"("varve":{"format":3,"job_id":"backup-pgtest1-1760000101",)"
    R"("job_images":["backup-pgtest1-disk0-20251009-085501",)"
    R"("backup-pgtest1-disk1-20251009-085501"],"repository_id":"1",)"
    R"("vm_path":"/DC1/vm/pgtest1","vcenter_host":"vc1","vmware_disk_key":2000,"generation":1,)"
    R"("position":1,"parent_change_id":"52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531",)"
    R"("tags":{},"warnings":[],)"
    R"("sums_sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",)"
    R"("parent_root":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",)"
    R"("job_type":"full","bytes_received":52428800,"bytes_zeroed":65536,"bytes_elided":5242880,)"
    R"("bytes_stored":47185920,"judged_bytes":0,"incompressible_bytes":0,"zero_data_bytes":0}})"
    "\n";

TEST(SidecarText, IsByteForByteThatOfTheContract) {
  EXPECT_EQ(encode_sidecar(example()), kExample);
}

TEST(SidecarText, ComesBackUnchanged) {
  EXPECT_EQ(decode_sidecar(kExample), example());
  Sidecar sidecar = example();
  sidecar.job.vm_name = "データベース \"x\"\\";
  sidecar.job.tags = {{"who", "ü"}, {"a", "b"}};
  sidecar.job.warnings = {{WarningCode::disk_added, 0, "new"},
                          {WarningCode::sampled_zeroes, std::nullopt, "zero"}};
  sidecar.disk.capacity_bytes = uint64_t{1} << 50;
  EXPECT_EQ(decode_sidecar(encode_sidecar(sidecar)), sidecar);
  EXPECT_EQ(encode_sidecar(decode_sidecar(encode_sidecar(sidecar))), encode_sidecar(sidecar));
}

TEST(SidecarText, OfEarlierVersionsIsReadAndWrittenAsItWas) {
  Sidecar old = example();
  old.format = 2;
  old.disk.counters = {};
  EXPECT_EQ(encode_sidecar(old).find("bytes_received"), std::string::npos);
  EXPECT_EQ(decode_sidecar(encode_sidecar(old)), old);
  old.format = 1;
  old.disk.sums_sha256 = old.disk.parent_root = "";
  const std::string text = encode_sidecar(old);
  EXPECT_EQ(text.find("sums_sha256"), text.npos);
  EXPECT_EQ(decode_sidecar(text), old);
}

TEST(SidecarText, EveryTruncationIsRefused) {
  const std::string text = kExample;
  for (size_t length = 0; length + 2 < text.size(); ++length) {
    EXPECT_THROW(decode_sidecar(text.substr(0, length)), FileTextError) << length;
  }
}

TEST(SidecarText, WrongMembersAreRefused) {
  const auto replaced = [](const std::string& from, const std::string& to) {
    std::string text = kExample;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  EXPECT_THROW(decode_sidecar(replaced("\"varve\":", "\"other\":")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("\"format\":3,", "\"format\":4,")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("47251456", "-1")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("47251456", "1.5")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("\"incremental\"", "\"differential\"")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("2025-10-09T08:55:01Z", "yesterday")), FileTextError);
  EXPECT_THROW(decode_sidecar(replaced("\"pgtest1\"", "1")), FileTextError);
  EXPECT_THROW(decode_sidecar("[]"), FileTextError);
}

TEST(SidecarText, TakesItsValuesFromTheJob) {
  Job job;
  job.id = "backup-a-1";
  job.context_id = "ctx-a-20251006-203401";
  job.warnings = {{WarningCode::disk_added, 1, "mine"},
                  {WarningCode::disk_added, 0, "another disk's"},
                  {WarningCode::disk_added, std::nullopt, "everybody's"}};
  job.disks.resize(2);
  job.disks[0].image_id = "backup-a-disk0-x";
  job.disks[1].image_id = "backup-a-disk1-x";
  job.disks[1].index = 1;
  job.disks[1].type = BackupType::incremental;
  job.disks[1].parent_image_id = "backup-a-disk1-w";
  job.disks[1].place.generation = 2;
  job.disks[1].place.position = 3;
  const Sidecar sidecar = sidecar_of(job, job.disks[1], from_unix_seconds(1759913694));
  EXPECT_EQ(sidecar.backing_file, "backup-a-disk1-w.qcow2");
  EXPECT_EQ(sidecar.job_images, (std::vector<std::string>{"backup-a-disk0-x", "backup-a-disk1-x"}));
  EXPECT_EQ(sidecar.disk.place.generation, 2u);
  EXPECT_EQ(sidecar.disk.place.position, 3u);
  ASSERT_EQ(sidecar.job.warnings.size(), 2u);
  EXPECT_EQ(sidecar.job.warnings[0].message, "mine");
  EXPECT_EQ(sidecar_of(job, job.disks[0], {}).backing_file, "");
}

}  // namespace
}  // namespace engine
