// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/restore/copier.h"

namespace app {

/// The changed parts of a disk, from a list that another program made.
///
/// A line is `offset length [type]`: decimal, 0x or with K, M, G; `#` begins a comment. The type is
/// a number or words, with or without nbdinfo's description behind it: `hole,zero` and `zero` (2,
/// 3) read as zeroes, `clean` is passed over, everything else is data. Or the same as JSON, an
/// array of objects with offset, length, type and description. Spec: nbdkit-extentlist-filter(1),
/// nbdinfo(1) "--map". Pure.
class Areas {
 public:
  /// Throws std::runtime_error that names `name` and the line.
  static Areas parse(std::string_view text, uint64_t disk_bytes, const std::string& name);

  /// The part of the list in [offset, offset + length), in order.
  std::vector<engine::CopyRange> within(uint64_t offset, uint64_t length) const;

  uint64_t bytes() const;

 private:
  void add(engine::CopyRange area);
  void sort_and_join();

  std::vector<engine::CopyRange> areas_;  // ascending, without overlap
};

}  // namespace app
