// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/entropy_sampler.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <numeric>

namespace engine {
namespace {

/// Sum of the squares of how often each byte occurs in a block: for n bytes near randomness it is
/// the Shannon entropy H in other words, n²/256 · (1 + (8 - H) · 2 ln 2), without a logarithm.
/// Random bytes give 69,616 with a deviation of 360, so that the line is at five deviations, or
/// 7.93 bits. Encryption is below it, xz as well, half of what gzip, bzip2 and zstd make of
/// programs; programs themselves begin at 300,000.
constexpr uint64_t kIncompressibleMax = 71400;
constexpr uint64_t kOneByteOnly = uint64_t{kEntropyBlockBytes} * kEntropyBlockBytes;

/// Blocks looked at before they are taken half as often.
constexpr uint64_t kSamplesPerStride = 256;

}  // namespace

BlockKind judge_block(std::span<const std::byte> block) {
  assert(block.size() == kEntropyBlockBytes);
  // Two tables: equal neighbours need not wait for each other.
  std::array<std::array<uint32_t, 256>, 2> counts{};
  for (size_t at = 0; at < kEntropyBlockBytes; at += 2) {
    ++counts[0][std::to_integer<uint8_t>(block[at])];
    ++counts[1][std::to_integer<uint8_t>(block[at + 1])];
  }
  uint64_t squares = 0;
  for (size_t value = 0; value < 256; ++value) {
    const uint64_t count = counts[0][value] + counts[1][value];
    squares += count * count;
  }
  if (squares == kOneByteOnly && block[0] == std::byte{0}) return BlockKind::zero;
  return squares <= kIncompressibleMax ? BlockKind::incompressible : BlockKind::compressible;
}

void EntropySampler::add(uint64_t offset, std::span<const std::byte> written) {
  const uint64_t begin = written_bytes_;
  written_bytes_ += written.size();
  while (next_at_ < written_bytes_) {
    const uint64_t at = (next_at_ - begin) / kEntropyBlockBytes * kEntropyBlockBytes;
    if (at + kEntropyBlockBytes > written.size()) {
      // The rest is too short; the next write is as good.
      next_at_ = written_bytes_;
      return;
    }
    sample(offset + at, written.subspan(at, kEntropyBlockBytes));
    // One in each stride on average, and never the same block twice.
    next_at_ = begin + at + kEntropyBlockBytes + draw(2 * (stride_bytes_ - kEntropyBlockBytes));
  }
}

void EntropySampler::sample(uint64_t offset, std::span<const std::byte> block) {
  const BlockKind kind = judge_block(block);
  judged_bytes_ += stride_bytes_;
  if (kind == BlockKind::zero) zero_bytes_ += stride_bytes_;
  if (kind == BlockKind::incompressible) {
    incompressible_bytes_ += stride_bytes_;
    ++places_seen_;
    if (places_.size() < kPlacesMax) {
      places_.push_back(offset);
    } else if (const uint64_t place = draw(places_seen_); place < kPlacesMax) {
      places_[place] = offset;
    }
  }
  if (++samples_ % kSamplesPerStride == 0) stride_bytes_ *= 2;
}

/// Below `end`, which is not 0; xorshift.
uint64_t EntropySampler::draw(uint64_t end) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_ % end;
}

}  // namespace engine
