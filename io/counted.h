// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace io {

/// A count with its noun: "1 disk", "2 disks", "0 disks"; of nouns whose plural ends in s. Pure.
inline std::string counted(uint64_t count, std::string_view singular) {
  std::string text = std::to_string(count) + " " + std::string(singular);
  return count == 1 ? text : text + "s";
}

}  // namespace io
