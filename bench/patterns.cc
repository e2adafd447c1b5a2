// SPDX-License-Identifier: Apache-2.0
#include "bench/patterns.h"

#include <algorithm>
#include <array>
#include <random>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

std::vector<Extent> sequential(uint64_t bytes, uint64_t block, uint64_t stride) {
  std::vector<Extent> extents;
  for (uint64_t done = 0; done < bytes; done += block) {
    extents.push_back({done * stride, std::min(block, bytes - done)});
  }
  return extents;
}

std::vector<Extent> random_blocks(uint64_t bytes, uint64_t block, uint64_t disk_size,
                                  uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Extent> extents;
  for (uint64_t done = 0; done < bytes; done += block) {
    extents.push_back({random() % (disk_size / block) * block, block});
  }
  return extents;
}

std::vector<Extent> client_copy(uint64_t bytes) {
  constexpr uint64_t kStep = 32 << 20, kSector = 512;
  const uint64_t third = bytes / 3 / kSector * kSector;
  std::array<uint64_t, 3> at = {0, third, 2 * third};
  const std::array<uint64_t, 3> end = {third, 2 * third, bytes};
  std::vector<Extent> extents;
  for (bool more = true; more;) {
    more = false;
    for (size_t worker = 0; worker < at.size(); ++worker) {
      if (at[worker] == end[worker]) continue;
      const uint64_t length = std::min(kStep, end[worker] - at[worker]);
      extents.push_back({at[worker], length});
      at[worker] += length;
      more = true;
    }
  }
  return extents;
}

}  // namespace

std::vector<Extent> plan(std::string_view pattern, uint64_t bytes, uint64_t block,
                         uint64_t disk_size, uint64_t seed) {
  if (pattern == "sequential") return sequential(bytes, block, 1);
  if (pattern == "scattered") return sequential(bytes, block, 4);
  if (pattern == "random") return random_blocks(bytes, block, disk_size, seed);
  if (pattern == "client") return client_copy(bytes);
  throw std::invalid_argument("unknown pattern " + std::string(pattern));
}

}  // namespace bench
