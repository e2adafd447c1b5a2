// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "qcow/image/create.h"
#include "tests/qcow/libqcow_images.h"

namespace qcow {
namespace {

/// libqcow inside its limits (LQ9–LQ14): there it is right.
class LibqcowSafe : public qcow_test::LibqcowImages {};

TEST_F(LibqcowSafe, ReadsAnImageOfVarvesMaking) {
  run(create(runtime(), file("a.qcow2"), {.virtual_size = 16 << 20}));
  scribble("a.qcow2", 16 << 20, 40);
  const Plan plan = expect_three_readers_agree("a.qcow2");
  EXPECT_EQ(plan.covered_bytes + plan.zero_flag_bytes, uint64_t{16} << 20);
}

TEST_F(LibqcowSafe, ReadsASealedImage) {
  run(create(runtime(), file("a.qcow2"), {.virtual_size = 16 << 20}));
  qemu_io("a.qcow2", {"write -P 5 0 3M", "write -P 6 10M 1M"});
  Header sealed = header("a.qcow2");
  sealed.autoclear_features |= kAutoclearSeal;
  sealed.record->flags |= Record::kFlagPublished;
  qcow_test::patch(file("a.qcow2"), 0, sealed.encode("a.qcow2"));
  EXPECT_EQ(expect_three_readers_agree("a.qcow2").coverage(16 << 20), 1.0);
}

TEST_F(LibqcowSafe, ReadsChainsOfTwoToFourLayers) {
  qemu_img("create -f qcow2 c1.qcow2 16M");
  scribble("c1.qcow2", 16 << 20, 30);
  const std::vector<std::string> options = {"", "-o cluster_size=4k", "-o cluster_size=1M"};
  for (int depth = 2; depth <= 4; ++depth) {
    qemu_img(fmt::format("create -f qcow2 {} -b c{}.qcow2 -F qcow2 c{}.qcow2", options[depth - 2],
                         depth - 1, depth));
    scribble(fmt::format("c{}.qcow2", depth), 16 << 20, 20);
    const Plan plan = expect_three_readers_agree(fmt::format("c{}.qcow2", depth));
    EXPECT_GT(plan.coverage(16 << 20), 0.3);
    EXPECT_EQ(plan.left_out_bytes, 0u);
  }
}

TEST_F(LibqcowSafe, LeavesOutTheTailOfAGrownDisk) {
  qemu_img("create -f qcow2 a.qcow2 4M");
  qemu_io("a.qcow2", {"write -P 1 0 4M"});
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 6M");
  qemu_io("b.qcow2", {"write -P 2 1M 64k"});
  EXPECT_EQ(expect_three_readers_agree("b.qcow2").left_out_bytes, uint64_t{2} << 20);
}

TEST_F(LibqcowSafe, Lq7ReadsOldAndDeflatedAndOddImages) {
  qemu_img("create -f qcow2 a.qcow2 8M");
  qemu_io("a.qcow2", {"write -P 1 0 2M", "write -P 2 3M 700k"});
  for (const std::string options :
       {"compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1"}) {
    qemu_img("convert -O qcow2 -o " + options + " a.qcow2 b.qcow2");
    EXPECT_EQ(expect_three_readers_agree("b.qcow2").coverage(8 << 20), 1.0) << options;
  }
  qemu_img("convert -c -O qcow2 a.qcow2 c.qcow2");
  EXPECT_EQ(expect_three_readers_agree("c.qcow2").coverage(8 << 20), 1.0);
  qemu_img("snapshot -c one a.qcow2");
  EXPECT_EQ(expect_three_readers_agree("a.qcow2").coverage(8 << 20), 1.0);
}

TEST_F(LibqcowSafe, Lq10IsNotCalledForWhatItCannotRead) {
  qemu_img("create -f qcow2 -o compression_type=zstd z.qcow2 1M");
  EXPECT_EQ(plan(*open_chain("z.qcow2")).refused, "incompatible bits");
  qemu_img("create -f qcow2 a.qcow2 1M");
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), 80, uint64_t{1} << 5);
  EXPECT_EQ(plan(*open_chain("a.qcow2")).refused, "compatible bits");
}

TEST_F(LibqcowSafe, Lq12IsNotCalledForZeroFlags) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 1 0 1M", "write -z 128k 64k"});
  const Plan plan = expect_three_readers_agree("a.qcow2");
  EXPECT_EQ(plan.zero_flag_bytes, 65536u);
  EXPECT_EQ(plan.ranges.size(), 2u);
}

}  // namespace
}  // namespace qcow
