// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "io/task.h"
#include "nbd/export.h"

namespace nbd {

/// What LIST says of an export.
struct OfferedExport {
  std::string name, description;
  ExportAccess access = ExportAccess::anybody;
  std::string owner;
};

/// Exports that are not in the table, because they are opened when a client asks for them. Outlives
/// the server. Called on the thread of the listener.
class ExportSource {
 public:
  virtual ~ExportSource() = default;

  /// The export of that name, which may be an alias, ready for connections; null when there is
  /// none. Throws any std::exception when there is one and it cannot be opened.
  virtual io::Task<std::shared_ptr<Export>> open(std::string name) = 0;

  /// At most `count_max` exports that come after `name` ("": from the first), in an order of its
  /// own; fewer only at the end. Aliases are not among them.
  virtual io::Task<std::vector<OfferedExport>> list_after(std::string name, size_t count_max) = 0;
};

}  // namespace nbd
