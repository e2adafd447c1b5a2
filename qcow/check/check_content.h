// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/chain/layer.h"
#include "qcow/chain/sums_reader.h"

namespace qcow {

/// Guest bytes that are not what was sent.
struct DamagedRange {
  uint64_t offset = 0, length = 0;  ///< guest bytes, whole clusters
  HostOffset host;                  ///< where the first of them lie in the file; 0: nowhere
  std::string what;                 ///< "reads differently", …
};

struct ContentOptions {
  /// Called with the bytes that were looked at since the last call; may wait, and may throw, which
  /// ends the check.
  std::function<io::Task<void>(uint64_t bytes)> on_progress;
  size_t damages_max = 1000;  ///< ranges kept; all bytes are counted
  bool reads_data = true;     ///< else only which clusters there are is compared
};

struct ContentResult {
  uint64_t data_bytes = 0;     ///< stored clusters whose content was compared
  uint64_t zero_bytes = 0;     ///< of clusters that are zero by their mapping
  uint64_t damaged_bytes = 0;  ///< of both, and of what is missing or too much
  std::vector<DamagedRange> damaged;
};

/// Compares what an image holds with its manifest: which clusters it stores, which are zero, and
/// the content of each stored one. Parents are not looked at. Damage is an answer; only what keeps
/// the check from going on throws: FormatError for a damaged manifest, what `on_progress` throws.
/// A cluster that the disk cannot read is damaged, too. Memory is bounded whatever the disk's size.
io::Task<ContentResult> check_content(io::Runtime runtime, Layer& image, SumsReader& sums,
                                      ContentOptions options);

}  // namespace qcow
