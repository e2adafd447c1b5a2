// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/chain_file.h"

#include <gtest/gtest.h>

#include "engine/repository/sidecar.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

Point point(uint32_t generation, uint32_t position) {
  Point point;
  point.image_id = "image-" + std::to_string(generation) + "-" + std::to_string(position);
  point.context_id = "ctx-a-20251006-203401";
  point.vm_name = "a";
  point.repository_id = "1";
  point.disk_index = 1;
  point.place.generation = generation;
  point.place.position = position;
  point.capacity_bytes = 1000;
  point.completed_at = from_unix_seconds(1759913694 + generation * 100 + position);
  return point;
}

Chain chain(std::vector<Point> points) {
  Chain chain;
  chain.context_id = points[0].context_id;
  chain.vm_name = points[0].vm_name;
  chain.repository_id = points[0].repository_id;
  chain.disk_index = points[0].disk_index;
  chain.generation = points[0].place.generation;
  chain.created_at = points.front().completed_at;
  chain.updated_at = points.back().completed_at;
  chain.points = std::move(points);
  return chain;
}

TEST(ChainFile, NamesTheNewestGenerationAndTheOlderOnes) {
  EXPECT_EQ(
      encode_chain_file({chain({point(1, 0), point(1, 1)}), chain({point(2, 0)})}),
      R"({"chain_id":"ctx-a-20251006-203401-disk1-chain","vm_context_id":"ctx-a-20251006-203401",)"
      R"("vm_name":"a","repository_id":"1","disk_id":1,"generation":2,)"
      R"("full_backup_id":"image-2-0","latest_backup_id":"image-2-0","backup_ids":["image-2-0"],)"
      R"("total_backups":1,"total_size_bytes":1000,"created_at":"2025-10-08T08:58:14Z",)"
      R"("updated_at":"2025-10-08T08:58:14Z","older_generations":[)"
      R"({"chain_id":"ctx-a-20251006-203401-disk1-chain","vm_context_id":"ctx-a-20251006-203401",)"
      R"("vm_name":"a","repository_id":"1","disk_id":1,"generation":1,)"
      R"("full_backup_id":"image-1-0","latest_backup_id":"image-1-1",)"
      R"("backup_ids":["image-1-0","image-1-1"],"total_backups":2,"total_size_bytes":2000,)"
      R"("created_at":"2025-10-08T08:56:34Z","updated_at":"2025-10-08T08:56:35Z"}]})"
      "\n");
}

TEST(VmFile, ComesBackAndHoldsNoCredentials) {
  Vm vm;
  vm.context_id = "ctx-a-20251006-203401";
  vm.safe_name = "a";
  vm.vm_name = "a";
  vm.vm_path = "/DC1/vm/a";
  vm.vcenter_host = "vc1";
  vm.credentials = {CredentialsRef::Kind::reference, "secret-ref"};
  vm.created_at = vm.updated_at = from_unix_seconds(1759913694);
  VmDisk disk;
  disk.key = 2016;
  disk.index = 1;
  disk.capacity_bytes = 512;
  disk.removed = true;
  vm.disks.push_back(disk);
  const std::string text = encode_vm_file(vm);
  EXPECT_EQ(text.find("secret-ref"), std::string::npos);
  const Vm back = decode_vm_file(text);
  EXPECT_EQ(encode_vm_file(back), text);
  EXPECT_EQ(back.safe_name, "a");
  ASSERT_EQ(back.disks.size(), 1u);
  EXPECT_EQ(back.disks[0].key, 2016u);
  EXPECT_EQ(back.disks[0].index, 1u);
  EXPECT_TRUE(back.disks[0].removed);
  for (size_t length = 0; length + 2 < text.size(); ++length) {
    EXPECT_THROW(decode_vm_file(text.substr(0, length)), FileTextError) << length;
  }
}

}  // namespace
}  // namespace engine
