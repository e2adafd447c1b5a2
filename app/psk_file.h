// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace app {

/// The pre-shared keys of a file as psktool writes it: "user:hexkey" lines.
///
/// The file is read again when it has changed, so that users can be added and removed under a
/// running server; while it cannot be used, no new client gets in. Any thread.
class PskFile {
 public:
  using Key = std::vector<std::byte>;

  /// Throws UsageError when the file cannot be used, also when others than its owner may read it.
  explicit PskFile(std::string path);

  std::optional<Key> find(const std::string& user);
  /// The user, where there is one only.
  std::optional<std::string> only_user();

 private:
  using Keys = std::map<std::string, Key, std::less<>>;

  void read();
  static Keys parse(const std::string& path, std::string_view text);

  const std::string path_;
  std::mutex mutex_;
  Keys keys_;            // guarded by mutex_, as all below
  std::string version_;  // of the file that keys_ come from
};

}  // namespace app
