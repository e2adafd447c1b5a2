// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace qcow {

/// True when all bytes are zero. Gives up at the first 64 bytes of data that hold a bit, so data
/// costs one cache line; zeroes are read once, in steps that the compiler vectorises.
inline bool is_zero(std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  for (size_t step = 64; left >= step;) {
    uint64_t seen = 0;
    for (size_t i = 0; i < step; i += 8) {
      uint64_t word;
      std::memcpy(&word, at + i, sizeof word);
      seen |= word;
    }
    if (seen != 0) return false;
    at += step;
    left -= step;
    if (step < 512 && left >= 512) step = 512;
    if (left < step) step = 64;
  }
  for (; left > 0; ++at, --left) {
    if (*at != std::byte{0}) return false;
  }
  return true;
}

}  // namespace qcow
