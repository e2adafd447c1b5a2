// SPDX-License-Identifier: Apache-2.0
#include "engine/values/change_id.h"

#include <gtest/gtest.h>

namespace engine {
namespace {

/// The row's number is that of docs/jobs.md, "Change ids".
class ChangeId : public testing::Test {
 protected:
  ChangeId() {
    vm_.active = JobSnapshot{"backup-vm-2", BackupType::incremental, {}};
    for (uint32_t index = 0; index < 3; ++index) {
      DiskSnapshot disk;
      disk.index = index;
      disk.key = 2000 + index;
      disk.parent_change_id = parent(index);
      disk.parent_job_id = "backup-vm-1";
      vm_.active->disks.push_back(disk);
      vm_.newest.push_back({index, 2000 + index, newest(index), "backup-vm-1"});
    }
  }

  static std::string parent(uint32_t index) { return "uuid" + std::to_string(index) + "/1"; }
  /// Another repository's, newer than the parent.
  static std::string newest(uint32_t index) { return "uuid" + std::to_string(index) + "/9"; }

  DiskSnapshot& disk(uint32_t index) { return vm_.active->disks.at(index); }
  void seal(uint32_t index) { disk(index).sealed = true; }
  void connect(uint32_t index, uint64_t sequence) {
    disk(index).connected = true;
    disk(index).connect_sequence = sequence;
  }

  ChangeIdDecision decide(const DiskAsked& asked) const { return decide_change_id({vm_}, asked); }
  std::string by_key(uint32_t key) const { return decide({key, std::nullopt}).change_id; }
  std::string by_index(uint32_t index) const { return decide({std::nullopt, index}).change_id; }
  std::string unsaid() const { return decide({}).change_id; }

  VmSnapshot vm_;
};

TEST_F(ChangeId, A21Row1AFullJobHandsOutNothing) {
  vm_.active->type = BackupType::full;
  connect(1, 1);
  for (const DiskAsked& asked :
       {DiskAsked{2000, {}}, DiskAsked{{}, 0}, DiskAsked{{}, 1}, DiskAsked{{}, {}}}) {
    EXPECT_EQ(decide(asked).change_id, "");
    EXPECT_EQ(decide(asked).handed_out_for, std::nullopt);
  }
}

TEST_F(ChangeId, A21Row2AKeyGetsTheIdOfItsDisksBacking) {
  connect(2, 5);
  EXPECT_EQ(by_key(2000), parent(0));
  EXPECT_EQ(by_key(2001), parent(1));
  seal(1);
  EXPECT_EQ(by_key(2001), parent(1));
  EXPECT_EQ(by_key(2099), "");
}

TEST_F(ChangeId, A21Row3AnIndexAboveZeroGetsTheIdOfItsDisksBacking) {
  connect(2, 5);
  EXPECT_EQ(by_index(1), parent(1));
  EXPECT_EQ(by_index(2), parent(2));
  EXPECT_EQ(by_index(3), "");
}

TEST_F(ChangeId, A21Row4IndexZeroMeansTheConnectedDisk) {
  seal(0);
  connect(1, 1);
  connect(2, 2);
  EXPECT_EQ(by_index(0), parent(2)) << "the one that connected last";
  EXPECT_EQ(unsaid(), parent(2));
  disk(2).connected = false;
  EXPECT_EQ(by_index(0), parent(1));
}

TEST_F(ChangeId, A21Row4DiskZeroWinsWhenItIsConnected) {
  connect(0, 1);
  connect(1, 2);
  EXPECT_EQ(by_index(0), parent(0));
}

TEST_F(ChangeId, A21Row4ALeakedConnectionOfASealedDiskDoesNotCount) {
  connect(0, 7);
  seal(0);
  connect(1, 3);
  EXPECT_EQ(by_index(0), parent(1));
  disk(1).connected = false;
  EXPECT_EQ(by_index(0), parent(1)) << "row 5";
}

TEST_F(ChangeId, A21Row5WithoutConnectionTheNextIncompleteDiskIsMeant) {
  EXPECT_EQ(by_index(0), parent(0));
  seal(0);
  EXPECT_EQ(by_index(0), parent(1));
  EXPECT_EQ(unsaid(), parent(1));
  seal(1);
  EXPECT_EQ(by_index(0), parent(2));
}

TEST_F(ChangeId, A21Row5GoesByKeyNotByIndex) {
  disk(2).key = 1999;  // added later, with a lower key
  EXPECT_EQ(by_index(0), parent(2));
}

TEST_F(ChangeId, A21Row6WithEverythingSealedDiskZeroIsMeant) {
  seal(0), seal(1), seal(2);
  EXPECT_EQ(by_index(0), parent(0));
  vm_.active->disks.erase(vm_.active->disks.begin());
  EXPECT_EQ(by_index(0), "");
}

TEST_F(ChangeId, A21Row7AStandaloneImageOrAnUnusableParentGetsNothing) {
  disk(1).parent_change_id = "";
  disk(2).parent_change_id = "no slash";
  EXPECT_EQ(by_index(1), "");
  EXPECT_EQ(by_key(2001), "");
  EXPECT_EQ(by_index(2), "");
  connect(1, 1);
  EXPECT_EQ(by_index(0), "");
}

TEST_F(ChangeId, A21Row8WithoutAJobTheNewestCompletedIdIsTold) {
  vm_.active.reset();
  EXPECT_EQ(by_index(0), newest(0));
  EXPECT_EQ(unsaid(), newest(0));
  EXPECT_EQ(by_index(2), newest(2));
  EXPECT_EQ(by_key(2001), newest(1));
  EXPECT_EQ(decide({2001, std::nullopt}).backup_id, "backup-vm-1");
  EXPECT_EQ(decide({2001, std::nullopt}).handed_out_for, std::nullopt);
}

TEST_F(ChangeId, A21Row9WithoutABackupOrAVmThereIsNone) {
  vm_.active.reset();
  EXPECT_EQ(by_index(3), "");
  vm_.newest.clear();
  EXPECT_EQ(by_index(0), "");
  EXPECT_EQ(decide_change_id({}, {}).change_id, "");
  EXPECT_FALSE(decide_change_id({}, {}).ambiguous);
}

TEST_F(ChangeId, A21Row10OfSeveralVmsTheOneWithAJobIsMeant) {
  VmSnapshot idle;
  idle.newest.push_back({0, 2000, "other/1", "backup-other-1"});
  const DiskAsked asked{std::nullopt, 0};
  EXPECT_EQ(decide_change_id({idle, vm_}, asked).change_id, parent(0));
  EXPECT_FALSE(decide_change_id({idle, vm_}, asked).ambiguous);
  EXPECT_TRUE(decide_change_id({idle, idle}, asked).ambiguous);
  EXPECT_EQ(decide_change_id({idle, idle}, asked).change_id, "");
  EXPECT_TRUE(decide_change_id({vm_, vm_}, asked).ambiguous);
  EXPECT_EQ(decide_change_id({vm_, vm_}, asked).change_id, "");
}

TEST_F(ChangeId, WhatIsHandedOutIsNamed) {
  const ChangeIdDecision decision = decide({std::nullopt, 1});
  EXPECT_EQ(decision.handed_out_for, 1u);
  EXPECT_EQ(decision.handed_out_by, "backup-vm-2");
  EXPECT_EQ(decision.backup_id, "backup-vm-1");
}

TEST_F(ChangeId, TheThreeGetsOfEachDiskAgree) {
  // GETs 1 and 2 say disk 0, GET 3 says the true index once it is connected; the first connection
  // of a finished disk is leaked.
  for (uint32_t index = 0; index < 3; ++index) {
    EXPECT_EQ(by_index(0), parent(index));
    EXPECT_EQ(by_index(0), parent(index));
    connect(index, index + 1);
    EXPECT_EQ(by_index(index), parent(index));
    seal(index);
  }
}

/// Which disk a `complete` without disk_id means.
class CompletedDisk : public ChangeId {
 protected:
  std::optional<uint32_t> select(const std::string& change_id) const {
    return select_completed_disk(vm_.active->disks, change_id);
  }
};

TEST_F(CompletedDisk, A18IsTheUnsealedConnectedDiskThatConnectedLast) {
  connect(0, 1), connect(1, 3), connect(2, 2);
  EXPECT_EQ(select("x/1"), 1u);
  seal(1);
  EXPECT_EQ(select("x/1"), 2u);
}

TEST_F(CompletedDisk, A24IsElseTheOneThatRecordedTheSameId) {
  connect(0, 1);
  seal(0);
  disk(0).change_id = "uuid0/2";
  disk(1).connect_sequence = 2;  // was connected, lost its connection
  EXPECT_EQ(select("uuid0/2"), 0u);
  EXPECT_EQ(select("uuid1/2"), 1u);
}

TEST_F(CompletedDisk, IsElseTheUnsealedOneThatWasConnectedLast) {
  disk(1).connect_sequence = 1;
  disk(2).connect_sequence = 2;
  EXPECT_EQ(select("x/1"), 2u);
}

TEST_F(CompletedDisk, IsElseTheUnsealedOneWithTheLowestKey) {
  EXPECT_EQ(select("x/1"), 0u);
  disk(2).key = 1000;
  EXPECT_EQ(select("x/1"), 2u);
}

TEST_F(CompletedDisk, IsNoneWhenAllAreSealedWithOtherIds) {
  seal(0), seal(1), seal(2);
  disk(0).change_id = "uuid0/2";
  EXPECT_EQ(select("x/1"), std::nullopt);
  EXPECT_EQ(select("uuid0/2"), 0u);
}

}  // namespace
}  // namespace engine
