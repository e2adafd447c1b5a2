// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/entries.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace qcow {
namespace {

TEST(L1Entry, RoundTripsOffsetAndCopiedFlag) {
  for (const bool copied : {false, true}) {
    const L1Entry entry{HostOffset{0x12'3456'0000}, copied};
    EXPECT_EQ(L1Entry::decode(entry.encode(), 16), entry);
  }
}

TEST(L1Entry, RefusesEveryReservedBit) {
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t raw = 0x8000'0000'0005'0000 | uint64_t{1} << bit;
    const bool reserved = bit <= 8 || (bit >= 56 && bit <= 62);
    const bool unaligned = bit >= 9 && bit < 16;
    EXPECT_EQ(L1Entry::decode(raw, 16).has_value(), !reserved && !unaligned) << "bit " << bit;
  }
}

TEST(L2Entry, RefusesEveryReservedBitOfAStandardCluster) {
  for (int bit = 0; bit < 64; ++bit) {
    const uint64_t raw = 0x8000'0000'0005'0000 | uint64_t{1} << bit;
    const bool reserved = (bit >= 1 && bit <= 8) || (bit >= 56 && bit <= 61);
    const bool unaligned = bit >= 9 && bit < 16;
    EXPECT_EQ(decode_l2_entry(raw, 16).has_value(), !reserved && !unaligned) << "bit " << bit;
  }
}

TEST(L2Entry, NeverPointsToTheHeader) {
  EXPECT_FALSE(decode_l2_entry(kEntryCopied, 16));
  EXPECT_FALSE(L1Entry::decode(kEntryCopied, 16));
}

TEST(L2Entry, KeepsThePreallocatedClusterOfAZero) {
  const auto mapping = decode_l2_entry(0x8000'0000'0005'0001, 16);
  EXPECT_EQ(mapping->kind, MappingKind::zero);
  EXPECT_EQ(mapping->host, HostOffset{0x50000});
  EXPECT_TRUE(mapping->copied);
}

TEST(L2Entry, HasNoZeroFlagInVersion2) {
  EXPECT_FALSE(decode_l2_entry(1, 16, 2));
  EXPECT_EQ(decode_l2_entry(1, 16, 3), Mapping::plain_zero());
}

TEST(L2Entry, RoundTripsEveryKindForEveryClusterSize) {
  std::mt19937_64 random(7);
  for (uint32_t bits = kClusterBitsMin; bits <= kClusterBitsMax; ++bits) {
    const HostOffset cluster{(random() % 100000 + 1) << bits};
    const uint32_t sectors_max = 1u << (bits - 8);
    for (const Mapping& mapping :
         {Mapping::unallocated(), Mapping::plain_zero(), Mapping::data_at(cluster),
          Mapping::data_at(cluster, false), Mapping{MappingKind::zero, cluster, true, 0},
          Mapping{MappingKind::compressed, HostOffset{cluster.bytes + 77}, false, 1},
          Mapping{MappingKind::compressed, HostOffset{cluster.bytes + 511}, false, sectors_max}}) {
      EXPECT_EQ(decode_l2_entry(encode_l2_entry(mapping, bits), bits), mapping) << bits;
    }
  }
}

TEST(RefcountTableEntry, RefusesReservedBitsAndUnalignedBlocks) {
  EXPECT_EQ(decode_refcount_table_entry(0x20000, 16), HostOffset{0x20000});
  EXPECT_EQ(decode_refcount_table_entry(0, 16), HostOffset{0});
  EXPECT_FALSE(decode_refcount_table_entry(0x20001, 16));
  EXPECT_FALSE(decode_refcount_table_entry(0x20200, 16));
}

TEST(Refcounts, EveryWidthKeepsItsNeighbours) {
  for (uint32_t order = 0; order <= kRefcountOrderMax; ++order) {
    const Geometry geometry{9, order, 1 << 20};
    std::vector<std::byte> block(geometry.cluster_bytes());
    std::vector<uint64_t> model(geometry.refcounts_per_block());
    std::mt19937_64 random(order);
    for (int i = 0; i < 20000; ++i) {
      const uint64_t index = random() % model.size();
      model[index] = random() & geometry.refcount_max();
      set_refcount(block, index, order, model[index]);
    }
    for (size_t index = 0; index < model.size(); ++index) {
      ASSERT_EQ(get_refcount(block, index, order), model[index]) << order << " @" << index;
    }
  }
}

TEST(Refcounts, NarrowOnesStartAtTheLowestBitsOfAByte) {
  std::vector<std::byte> block(512);
  set_refcount(block, 0, 0, 1);
  set_refcount(block, 9, 0, 1);
  EXPECT_EQ(block[0], std::byte{0x01});
  EXPECT_EQ(block[1], std::byte{0x02});
  set_refcount(block, 5, 2, 0xa);  // 4 bits wide: the upper half of byte 2
  EXPECT_EQ(block[2], std::byte{0xa0});
}

}  // namespace
}  // namespace qcow
