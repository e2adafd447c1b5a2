// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/entropy_sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <random>
#include <string>

namespace engine {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(size_t count, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  Bytes bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

Bytes text_bytes(size_t count) {
  std::string text;
  for (int line = 0; text.size() < count; ++line) {
    text += "line " + std::to_string(line * 7919) + " of a log, as programs write them\n";
  }
  const auto bytes = std::as_bytes(std::span(text)).first(count);
  return {bytes.begin(), bytes.end()};
}

/// Bits in a byte, as Shannon has it.
double entropy_of(std::span<const std::byte> block) {
  std::array<double, 256> counts{};
  for (const std::byte byte : block) ++counts[std::to_integer<uint8_t>(byte)];
  double bits = 0;
  for (const double count : counts) {
    if (count > 0) bits -= count / block.size() * std::log2(count / block.size());
  }
  return bits;
}

/// Bytes of `values` different ones, evenly.
Bytes even_bytes(unsigned values, uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(kEntropyBlockBytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() % values);
  return bytes;
}

TEST(JudgeBlock, KnowsZeroesTextProgramsAndRandomBytes) {
  EXPECT_EQ(judge_block(Bytes(kEntropyBlockBytes)), BlockKind::zero);
  EXPECT_EQ(judge_block(Bytes(kEntropyBlockBytes, std::byte{1})), BlockKind::compressible);
  EXPECT_EQ(judge_block(text_bytes(kEntropyBlockBytes)), BlockKind::compressible);
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    ASSERT_EQ(judge_block(random_bytes(kEntropyBlockBytes, seed)), BlockKind::incompressible);
  }
  // This program, from where the code is.
  std::ifstream self("/proc/self/exe", std::ios::binary);
  Bytes program(1 << 20);
  self.seekg(1 << 16).read(reinterpret_cast<char*>(program.data()), 1 << 20);
  for (size_t at = 0; at < program.size(); at += kEntropyBlockBytes) {
    EXPECT_NE(judge_block(std::span(program).subspan(at, kEntropyBlockBytes)),
              BlockKind::incompressible)
        << at;
  }
}

TEST(JudgeBlock, DrawsTheLineAt7Point93BitsOfShannonEntropy) {
  for (unsigned values = 100; values <= 256; ++values) {
    const Bytes block = even_bytes(values, values);
    const double bits = entropy_of(block);
    if (std::abs(bits - 7.93) < 0.01) continue;
    EXPECT_EQ(judge_block(block) == BlockKind::incompressible, bits > 7.93) << bits;
  }
}

TEST(EntropySampler, EstimatesSharesOfWhatIsWrittenInAnyPieces) {
  for (const size_t piece : {4096, 65536, 1 << 20}) {
    EntropySampler sampler;
    const Bytes noise = random_bytes(piece), text = text_bytes(piece), zeroes(piece);
    const uint64_t total = 256 << 20;
    std::mt19937_64 random(piece);
    for (uint64_t at = 0; at < total; at += piece) {
      const uint64_t lot = random() % 10;
      sampler.add(at, lot < 3 ? noise : lot < 5 ? zeroes : text);
    }
    const auto share = [&](uint64_t bytes) {
      return static_cast<double>(bytes) / static_cast<double>(sampler.judged_bytes());
    };
    EXPECT_NEAR(static_cast<double>(sampler.judged_bytes()) / total, 1, 0.1) << piece;
    EXPECT_NEAR(share(sampler.incompressible_bytes()), 0.3, 0.1) << piece;
    EXPECT_NEAR(share(sampler.zero_bytes()), 0.2, 0.1) << piece;
  }
}

TEST(EntropySampler, NamesPlacesWhereIncompressibleDataWasWrittenAndNoOthers) {
  EntropySampler sampler;
  const Bytes noise = random_bytes(1 << 20), text = text_bytes(1 << 20);
  for (uint64_t mib = 0; mib < 64; ++mib) sampler.add(mib << 20, mib % 2 == 0 ? noise : text);
  EXPECT_EQ(sampler.incompressible_places().size(), EntropySampler::kPlacesMax);
  for (const uint64_t place : sampler.incompressible_places()) {
    EXPECT_EQ((place >> 20) % 2, 0u);
    EXPECT_EQ(place % kEntropyBlockBytes, 0u);
  }
}

TEST(EntropySampler, LooksAtLittleOfMuch) {
  EntropySampler sampler;
  const Bytes noise = random_bytes(1 << 20);
  uint64_t looked_at = 0, before = 0;
  for (uint64_t mib = 0; mib < 16 << 10; ++mib) {
    sampler.add(mib << 20, noise);
    looked_at += sampler.judged_bytes() != before;
    before = sampler.judged_bytes();
  }
  EXPECT_LT(looked_at, 3500u) << "1 MiB writes of 16 GiB in which any block was looked at";
}

TEST(EntropySampler, KnowsNothingOfWritesThatAreTooShort) {
  EntropySampler sampler;
  const Bytes noise = random_bytes(512);
  for (uint64_t at = 0; at < 1 << 20; at += 512) sampler.add(at, noise);
  EXPECT_EQ(sampler.judged_bytes(), 0u);
}

}  // namespace
}  // namespace engine
