// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace crash {

/// Draws that are the same for the same seed, everywhere (splitmix64).
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// 0 … bound − 1; 0 for a bound of 0.
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool one_in(uint64_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

/// A seed of its own for a part of what `seed` decides.
inline uint64_t seed_of(uint64_t seed, uint64_t part) {
  Rng rng(seed * 0x2545f4914f6cdd1d + part);
  rng.next();
  return rng.next();
}

}  // namespace crash
