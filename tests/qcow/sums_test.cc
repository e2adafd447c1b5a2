// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/sums.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>

#include "qcow/format/format_error.h"
#include "qcow/image/sum_log.h"
#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

Sum some_sum(uint64_t number) { return sum_of(std::as_bytes(std::span(&number, 1))); }

SumBlock some_block() {
  SumBlock block{.l1_index = 3};
  for (uint32_t index : {0, 1, 2, 9}) block.add_data(index, some_sum(index));
  for (uint32_t index : {10, 11, 4000}) block.add_zero(index);
  block.add_data(8191, some_sum(8191));
  return block;
}

bool is_refused(std::span<const std::byte> bytes) {
  try {
    decode_sum_block(bytes, 3, 8192, "a.sums");
    return false;
  } catch (const FormatError&) {
    return true;
  }
}

TEST(Sums, AreThirtyTwoHexadecimalDigitsAndBack) {
  Sum sum;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<std::byte>(i * 17);
  EXPECT_EQ(sum_text(sum), "00112233445566778899aabbccddeeff");
  EXPECT_EQ(sum_from_text(sum_text(sum)), sum);
  for (const std::string& other : {std::string(), std::string(31, '0'), std::string(33, '0'),
                                   std::string(32, 'g'), std::string(32, ' ')}) {
    EXPECT_EQ(sum_from_text(other), std::nullopt) << other;
  }
}

TEST(SumBlocks, GoThroughTheirBytesUnchanged) {
  const SumBlock block = some_block();
  EXPECT_EQ(block.runs.size(), 5u);
  EXPECT_EQ(decode_sum_block(encode(block), 3, 8192, "a.sums"), block);
}

TEST(SumBlocks, WithAnyBitChangedOrAnyEndMissingAreRefused) {
  const std::vector<std::byte> good = encode(some_block());
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> bad = good;
      bad[at] ^= static_cast<std::byte>(1 << bit);
      EXPECT_TRUE(is_refused(bad)) << at << ' ' << bit;
    }
    EXPECT_TRUE(is_refused(std::span(good).first(at))) << at;
  }
}

TEST(SumBlocks, OfClustersThatTheTableDoesNotHaveAreRefused) {
  SumBlock block{.l1_index = 3};
  block.add_zero(8192);
  EXPECT_TRUE(is_refused(encode(block)));
}

TEST(SumsFooters, WithAnyBitChangedAreRefused) {
  const SumsFooter footer{.virtual_bytes = 1 << 30, .block_count = 2, .index_offset = 1000};
  const uint64_t file_bytes = 1000 + 2 * SumIndexEntry::kBytes + SumsFooter::kBytes;
  const std::vector<std::byte> good = footer.encode();
  EXPECT_EQ(SumsFooter::decode(good, file_bytes, "a.sums"), footer);
  for (size_t at = 0; at < good.size(); ++at) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{1};
    EXPECT_THROW(SumsFooter::decode(bad, file_bytes, "a.sums"), FormatError) << at;
  }
  EXPECT_THROW(SumsFooter::decode(good, file_bytes - 1, "a.sums"), FormatError);
}

TEST(SumsIndices, ThatGoBackAreRefused) {
  const std::vector<SumIndexEntry> good = {{0, 0}, {7, 40}, {8, 100}};
  EXPECT_EQ(decode_sum_index(encode(good), 200, "a.sums"), good);
  for (const std::vector<SumIndexEntry>& bad : {std::vector<SumIndexEntry>{{0, 0}, {0, 40}},
                                                {{0, 0}, {1, 0}},
                                                {{0, 8}},
                                                {{0, 0}, {1, 200}}}) {
    EXPECT_THROW(decode_sum_index(encode(bad), 200, "a.sums"), FormatError);
  }
}

class SumLogTest : public qcow_test::ImageFiles {};

/// Lists of eight entries, so that they are written, merged and read back many times.
TEST_F(SumLogTest, GivesTheLastEntryOfEachClusterWhateverWasSpilled) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    SumLog log(runtime(), file("scratch"), 8);
    std::map<GuestCluster, std::optional<Sum>> model;
    const uint64_t clusters = 1 + random() % 3000;
    const uint64_t count = random() % 8000;
    auto fill = [&]() -> io::Task<void> {
      for (uint64_t i = 0; i < count; ++i) {
        if (!log.has_room()) co_await log.make_room();
        const GuestCluster cluster{random() % clusters};
        if (random() % 8 == 0) {
          log.forget(cluster);
          model[cluster] = std::nullopt;
        } else {
          log.note(cluster, some_sum(i));
          model[cluster] = some_sum(i);
        }
      }
      co_await log.finish();
    };
    run(fill());
    EXPECT_FALSE(log.incomplete());
    auto expected = model.begin();
    for (GuestCluster end; end.index < clusters;) {
      end += 1 + random() % 500;
      for (const SumLog::Entry& entry : run(log.take(end))) {
        ASSERT_NE(expected, model.end());
        ASSERT_LT(entry.cluster, end);
        ASSERT_EQ(entry.cluster, expected->first) << seed;
        ASSERT_EQ(entry.sum, expected->second) << seed;
        ++expected;
      }
    }
    EXPECT_EQ(expected, model.end());
    EXPECT_FALSE(std::filesystem::exists(file("scratch"))) << "its name goes at once";
  }
}

TEST_F(SumLogTest, WithoutRoomSaysThatItIsIncomplete) {
  SumLog log(runtime(), file("scratch"), 8);
  for (uint64_t i = 0; i < 1000; ++i) log.note({i}, some_sum(i));
  EXPECT_TRUE(log.incomplete());
}

}  // namespace
}  // namespace qcow
