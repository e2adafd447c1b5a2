// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "io/owned_fd.h"

namespace app {

/// The audit log: lines are appended, each by one write. Spec: docs/http-access.md, "The audit
/// log".
///
/// A file that was moved or removed, as logrotate does, is opened anew by its name with the next
/// line. A line that cannot be written is lost; the first of a row of failures is logged, and so is
/// its end. Any thread.
class AuditFile {
 public:
  /// Opens nothing yet.
  explicit AuditFile(std::string path) : path_(std::move(path)) {}

  void write(std::string_view line);

 private:
  bool is_still_there() const;
  void append(const std::string& text);

  const std::string path_;
  std::mutex mutex_;
  io::OwnedFd fd_;  // guarded by mutex_, as below
  bool failing_ = false;
  bool is_torn_ = false;  // the last line is there in part
};

}  // namespace app
