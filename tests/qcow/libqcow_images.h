// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/qcow/image_files.h"

namespace qcow_test {

struct Range {
  uint64_t offset = 0, length = 0;  // bytes
};

/// libqcow as a second reader, always in a child process.
class LibqcowImages : public ImageFiles {
 protected:
  struct Reading {
    support::CommandResult result;
    Bytes content;  ///< of the whole disk; what was not asked for is zeroes
  };
  /// What libqcow makes of a chain (top's name), with the parents set by hand.
  Reading libqcow_read(const std::string& name, uint64_t piece_bytes,
                       const std::vector<Range>& ranges, int patience_seconds = 20,
                       const std::string& prefix = "");
  Reading libqcow_read_all(const std::string& name, uint64_t piece_bytes);

  /// What the safe protocol (LQ9–LQ14) lets libqcow read.
  struct Plan {
    std::string refused;  ///< why libqcow is not called at all (LQ10), or empty
    uint64_t piece_bytes = 0;
    std::vector<Range> ranges;
    uint64_t covered_bytes = 0, zero_flag_bytes = 0, left_out_bytes = 0;
    double coverage(uint64_t size) const;
  };
  Plan plan(qcow::Chain& chain);

  /// Reads a chain by the safe protocol and compares with varve's walker and with qemu. Returns the
  /// plan for the test to judge the coverage.
  Plan expect_three_readers_agree(const std::string& name);
};

}  // namespace qcow_test
