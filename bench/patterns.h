// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace bench {

/// What one request covers, bytes.
struct Extent {
  uint64_t offset, length;
};

/// The requests of a workload, in the order they are sent, `bytes` in all.
///   sequential  blocks one behind the other
///   scattered   every fourth block, as changed blocks lie about
///   random      blocks drawn from the whole disk by `seed`
///   client      the existing client's full copy: three workers over thirds of `bytes` that are
///               rounded down to a sector, 32 MiB steps in turn
/// Throws std::invalid_argument for an unknown name.
std::vector<Extent> plan(std::string_view pattern, uint64_t bytes, uint64_t block,
                         uint64_t disk_size, uint64_t seed);

}  // namespace bench
