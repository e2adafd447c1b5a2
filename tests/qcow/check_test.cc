// SPDX-License-Identifier: Apache-2.0
#include "qcow/check/check.h"

#include <fmt/format.h>

#include <filesystem>

#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

/// The number behind `"name": ` in qemu-img's JSON, which leaves out what is zero.
uint64_t json_number(const std::string& json, const std::string& name) {
  const size_t at = json.find("\"" + name + "\": ");
  return at == std::string::npos ? 0 : std::stoull(json.substr(at + name.size() + 4));
}

class Check : public qcow_test::ImageFiles {
 protected:
  void SetUp() override {
    qemu_img("create -f qcow2 good.qcow2 100M");
    qemu_io("good.qcow2", {"write -P 1 0 256k", "write -P 2 10M 128k", "write -z 20M 128k"});
    start();
  }

  /// Begins the next case with a fresh copy.
  void start() {
    std::filesystem::copy_file(file("good.qcow2"), file("a.qcow2"),
                               std::filesystem::copy_options::overwrite_existing);
    const Header good = header("a.qcow2");
    l1_ = good.l1_table.bytes;
    l2_ = word(l1_) & kEntryOffsetMask;
    refcount_table_ = good.refcount_table.bytes;
    refcount_block_ = word(refcount_table_);
  }
  uint64_t word(uint64_t at) { return qcow_test::peek_be<uint64_t>(file("a.qcow2"), at); }
  void set_word(uint64_t at, uint64_t value) { qcow_test::patch_be(file("a.qcow2"), at, value); }
  void set_refcount_of(uint64_t host, uint16_t value) {
    qcow_test::patch_be(file("a.qcow2"), refcount_block_ + (host >> 16) * 2, value);
  }
  uint64_t data_cluster(uint64_t guest_cluster) {
    return word(l2_ + guest_cluster * 8) & kEntryOffsetMask;
  }

  CheckResult result(const std::string& name, CheckOptions options = CheckOptions()) {
    return run(check(runtime(), file(name), options));
  }

  /// The counts of varve's checker, which must be those of qemu-img.
  std::string verdict(const std::string& name = "a.qcow2", CheckOptions options = CheckOptions()) {
    const CheckResult ours = result(name, options);
    const auto theirs =
        support::run_command({"qemu-img", "check", "-f", "qcow2", "--output=json", file(name)});
    EXPECT_EQ(ours.corruptions, json_number(theirs.output, "corruptions")) << theirs.output;
    EXPECT_EQ(ours.leaks, json_number(theirs.output, "leaks")) << theirs.output;
    EXPECT_EQ(ours.clean(), theirs.exit_code == 0) << theirs.output;
    EXPECT_EQ(ours.findings.size() + ours.findings_left_out,
              ours.corruptions + ours.leaks + ours.shared_clusters);
    return fmt::format("{} corruptions, {} leaks, {} shared", ours.corruptions, ours.leaks,
                       ours.shared_clusters);
  }

  uint64_t l1_ = 0, l2_ = 0, refcount_table_ = 0, refcount_block_ = 0;
};

constexpr char kClean[] = "0 corruptions, 0 leaks, 0 shared";

TEST_F(Check, AGoodImageIsCleanAndCounted) {
  EXPECT_EQ(verdict(), kClean);
  const CheckResult good = result("a.qcow2");
  EXPECT_EQ(good.guest_clusters, 1600u);
  EXPECT_EQ(good.data_clusters, 6u);
  EXPECT_EQ(good.zero_clusters, 2u);
  EXPECT_EQ(good.used_end, round_up(good.file_bytes, 65536));
}

TEST_F(Check, FindsARefcountThatIsTooLow) {
  set_refcount_of(data_cluster(1), 0);
  // The refcount, and the copied flag that contradicts it.
  EXPECT_EQ(verdict(), "2 corruptions, 0 leaks, 0 shared");
  EXPECT_NE(result("a.qcow2").findings[1].find("refcount 0, references 1"), std::string::npos);
}

TEST_F(Check, FindsARefcountThatIsTooHigh) {
  set_refcount_of(data_cluster(1), 3);
  EXPECT_EQ(verdict(), "1 corruptions, 1 leaks, 0 shared");
}

TEST_F(Check, FindsALeakedCluster) {
  set_word(l2_ + 8, 0);
  EXPECT_EQ(verdict(), "0 corruptions, 1 leaks, 0 shared");
}

TEST_F(Check, FindsTwoOwnersOfACluster) {
  set_word(l2_ + 8, word(l2_));
  EXPECT_EQ(verdict(), "1 corruptions, 1 leaks, 1 shared");
}

TEST_F(Check, FindsTwoOwnersThatQemuAllows) {
  set_word(l2_, data_cluster(0));
  set_refcount_of(data_cluster(1), 0);
  set_word(l2_ + 8, data_cluster(0));
  set_refcount_of(data_cluster(0), 2);
  EXPECT_EQ(verdict(), "0 corruptions, 0 leaks, 1 shared");
}

TEST_F(Check, FindsDataOverMetadata) {
  set_word(l2_ + 8, l2_ | kEntryCopied);
  EXPECT_EQ(verdict(), "1 corruptions, 1 leaks, 1 shared");
  start();
  set_word(l2_ + 8, l1_ | kEntryCopied);
  EXPECT_EQ(verdict(), "1 corruptions, 1 leaks, 1 shared");
  start();
  set_word(l2_ + 8, refcount_block_ | kEntryCopied);
  EXPECT_EQ(verdict(), "2 corruptions, 1 leaks, 1 shared");
}

TEST_F(Check, FindsReservedBits) {
  set_word(l2_ + 8, word(l2_ + 8) | 2);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
  start();
  set_word(l1_, word(l1_) | 1);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
  start();
  set_word(l2_ + 800 * 8, uint64_t{1} << 57);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
}

TEST_F(Check, FindsWrongCopiedFlags) {
  set_word(l2_ + 8, word(l2_ + 8) & ~kEntryCopied);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
  start();
  set_word(l1_, word(l1_) & ~kEntryCopied);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
}

/// qemu-img passes over such an L2 entry; varve's reader and writer refuse it as corrupt.
TEST_F(Check, FindsACopiedFlagWithoutACluster) {
  for (const uint64_t flags : {kEntryCopied, kEntryCopied | kEntryZero}) {
    start();
    set_word(l2_ + 800 * 8, flags);
    const CheckResult found = result("a.qcow2");
    EXPECT_EQ(found.corruptions, 1u);
    ASSERT_EQ(found.findings.size(), 1u);
    EXPECT_NE(found.findings[0].find("copied flag without a cluster"), std::string::npos)
        << found.findings[0];
  }
  start();
  set_word(l1_, kEntryCopied);
  const CheckResult found = result("a.qcow2");
  ASSERT_FALSE(found.findings.empty());
  EXPECT_NE(found.findings[0].find("copied flag without a table"), std::string::npos)
      << found.findings[0];
  EXPECT_EQ(found.shared_clusters, 0u) << "the header is not taken for an L2 table";
}

TEST_F(Check, FindsEntriesPastTheEndOfTheFile) {
  set_word(l2_ + 8, 0x7000'0000 | kEntryCopied);
  EXPECT_EQ(verdict(), "2 corruptions, 1 leaks, 0 shared");
  start();
  const uint64_t end = round_up(qcow_test::file_bytes(file("a.qcow2")), 65536);
  set_word(l2_ + 8, end | kEntryCopied);
  EXPECT_EQ(verdict(), "2 corruptions, 1 leaks, 0 shared");
}

TEST_F(Check, FindsUnalignedClusters) {
  set_word(l2_ + 3 * 8, word(l2_ + 2 * 8) + 512);
  EXPECT_NE(verdict(), kClean);
}

TEST_F(Check, FindsADamagedRefcountTable) {
  set_word(refcount_table_ + 8, 0x30001);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
  start();
  set_word(refcount_table_ + 8, 0x7000'0000);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 0 shared");
  start();
  set_word(refcount_table_ + 8, refcount_block_);
  EXPECT_NE(verdict(), kClean);
}

TEST_F(Check, AcceptsEveryShapeThatQemuMakes) {
  qemu_img("convert -c -O qcow2 good.qcow2 compressed.qcow2");
  EXPECT_EQ(verdict("compressed.qcow2"), kClean);
  EXPECT_GT(result("compressed.qcow2").compressed_clusters, 0u);
  qemu_img("create -f qcow2 -o compat=0.10,cluster_size=4k old.qcow2 10M");
  scribble("old.qcow2", 10 << 20, 30);
  EXPECT_EQ(verdict("old.qcow2"), kClean);
  for (const std::string options : {"refcount_bits=1", "cluster_size=512,refcount_bits=64",
                                    "cluster_size=2M,refcount_bits=8", "preallocation=metadata"}) {
    qemu_img("create -f qcow2 -o " + options + " b.qcow2 20M");
    scribble("b.qcow2", 20 << 20, 30);
    EXPECT_EQ(verdict("b.qcow2"), kClean) << options;
  }
}

TEST_F(Check, CountsSnapshotsAndBitmaps) {
  scribble("a.qcow2", 100 << 20, 20);
  qemu_img("snapshot -c one a.qcow2");
  scribble("a.qcow2", 100 << 20, 20);
  qemu_img("snapshot -c two a.qcow2");
  qemu_io("a.qcow2", {"write -P 3 0 1M"});
  EXPECT_EQ(verdict(), kClean);
  qemu_img("bitmap --add -g 64k a.qcow2 b0");
  qemu_img("bitmap --add a.qcow2 other");
  qemu_io("a.qcow2", {"write -P 4 30M 1M"});
  EXPECT_NE(header("a.qcow2").autoclear_features & kAutoclearBitmaps, 0u);
  EXPECT_EQ(verdict(), kClean);
  set_word(header("a.qcow2").l1_table.bytes, 0);
  EXPECT_NE(verdict(), kClean);
}

TEST_F(Check, CountsMoreReferencesThanAByteCanSay) {
  for (uint64_t i = 1; i < 40; ++i) set_word(l2_ + (100 + i) * 8, data_cluster(0));
  set_word(l2_, data_cluster(0));
  set_refcount_of(data_cluster(0), 40);
  EXPECT_EQ(verdict(), "0 corruptions, 0 leaks, 39 shared");
  set_refcount_of(data_cluster(0), 39);
  EXPECT_EQ(verdict(), "1 corruptions, 0 leaks, 39 shared");
  set_refcount_of(data_cluster(0), 41);
  EXPECT_EQ(verdict(), "0 corruptions, 1 leaks, 39 shared");
}

TEST_F(Check, EndsWhateverASnapshotCountSays) {
  qcow_test::patch_be<uint32_t>(file("a.qcow2"), 60, 0xffff'ffff);
  set_word(64, 0x30000);
  EXPECT_GT(result("a.qcow2").corruptions, 0u);
  qcow_test::patch_be<uint32_t>(file("a.qcow2"), 60, 60'000);  // as many as qemu takes
  set_word(64, round_up(qcow_test::file_bytes(file("a.qcow2")), 65536));
  EXPECT_EQ(result("a.qcow2").corruptions, 1u) << "found once, at the first that is not there";
}

TEST_F(Check, EndsWhateverABitmapTableSays) {
  qemu_img("bitmap --add a.qcow2 b0");
  const Header with_bitmap = header("a.qcow2");
  uint64_t directory = 0;
  for (const Extension& extension : with_bitmap.other_extensions) {
    if (extension.type == kExtensionBitmaps) {
      directory = io::load_be<uint64_t>(&extension.content[16]);
    }
  }
  ASSERT_NE(directory, 0u);
  qcow_test::patch_be<uint32_t>(file("a.qcow2"), directory + 8, 0xffff'ffff);  // 32 GiB of table
  const CheckResult found = result("a.qcow2");
  EXPECT_GT(found.corruptions, 0u);
  EXPECT_NE(found.findings.front().find("bitmap table"), std::string::npos)
      << found.findings.front();
}

TEST_F(Check, ManyPassesFindWhatOneFinds) {
  scribble("a.qcow2", 100 << 20, 50);
  l2_ = word(l1_) & kEntryOffsetMask;
  EXPECT_EQ(verdict("a.qcow2", {.clusters_per_pass = 7}), kClean);
  set_word(l2_ + 8, 0x7000'0001);
  set_word(l2_ + 16, word(l2_));
  set_refcount_of(data_cluster(0), 7);
  const std::string in_one = verdict();
  EXPECT_NE(in_one, kClean);
  for (const uint64_t clusters : {1, 2, 5, 64}) {
    EXPECT_EQ(verdict("a.qcow2", {.clusters_per_pass = clusters}), in_one) << clusters;
  }
}

TEST_F(Check, KeepsAFewFindingsAndCountsAll) {
  for (uint64_t i = 0; i < 20; ++i) set_word(l2_ + (900 + i) * 8, 4);
  const CheckResult found = result("a.qcow2", {.findings_max = 5});
  EXPECT_EQ(found.corruptions, 20u);
  EXPECT_EQ(found.findings.size(), 5u);
  EXPECT_EQ(found.findings_left_out, 15u);
}

TEST_F(Check, RandomDamageIsJudgedAsByQemu) {
  for (int round = 0; round < 12; ++round) {
    start();
    for (int i = 0; i < 4; ++i) {
      const uint64_t entry = random_() % 5;
      if (random_() % 2 == 0) {
        const uint64_t damaged = word(l2_ + entry * 8) ^ (uint64_t{1} << (random_() % 64));
        // qemu-img passes over the copied flag of an entry without a cluster.
        if ((damaged & kEntryCopied) == 0 || (damaged & kEntryOffsetMask) != 0) {
          set_word(l2_ + entry * 8, damaged);
        }
      } else {
        set_refcount_of((random_() % 12) << 16, static_cast<uint16_t>(random_() % 3));
      }
    }
    const CheckResult ours = result("a.qcow2");
    const auto theirs = support::run_command({"qemu-img", "check", "-f", "qcow2", file("a.qcow2")});
    EXPECT_EQ(ours.corruptions > 0, theirs.exit_code == 2 || theirs.exit_code == 1)
        << theirs.output;
    EXPECT_EQ(ours.clean(), theirs.exit_code == 0) << theirs.output;
  }
}

}  // namespace
}  // namespace qcow
