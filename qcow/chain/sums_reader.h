// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/task.h"
#include "qcow/format/sums.h"

namespace qcow {

/// The manifest of a published image, read block by block; its index is in memory. Throws
/// FormatError for a file that is damaged or another image's, and std::system_error.
/// Belongs to one executor thread. Spec: docs/manifest.md.
class SumsReader {
 public:
  static io::Task<std::unique_ptr<SumsReader>> open(io::FileSystem& files, std::string path);

  const SumsFooter& footer() const { return footer_; }
  const std::string& name() const { return name_; }

  /// What the image holds of the range of one L2 table; nothing when it holds nothing of it.
  io::Task<std::optional<SumBlock>> block(uint64_t l1_index);

 private:
  SumsReader(std::unique_ptr<io::File> file, std::string name);
  io::Task<void> load();

  std::unique_ptr<io::File> file_;
  std::string name_;
  SumsFooter footer_;
  std::vector<SumIndexEntry> index_;
};

}  // namespace qcow
