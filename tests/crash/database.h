// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

namespace crash {

/// The files of an SQLite database as one commit left them.
struct DatabaseFiles {
  std::string main, log;
};

DatabaseFiles read_database(const std::string& path);
/// Puts them in the place of what is there; nothing of no commit.
void restore_database(const std::string& path, const DatabaseFiles& files);

/// Calls `committed` after each transaction of any database of this process, until destroyed; one
/// that `refuses` is rolled back, as on a full disk. One watch at a time.
class CommitWatch {
 public:
  explicit CommitWatch(
      std::function<void()> committed, std::function<bool()> refuses = [] { return false; });
  CommitWatch(const CommitWatch&) = delete;
  ~CommitWatch();
};

}  // namespace crash
