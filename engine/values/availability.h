// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>
#include <string>

namespace engine {

/// Which repositories cannot be used now, and why: not mounted, read-only, another's directory.
/// A repository that is not in here can be used. Thread-safe, because health answers read it
/// anywhere.
class Availability {
 public:
  /// True when it could be used before, or had another cause.
  bool set_unavailable(const std::string& repository_id, const std::string& cause) {
    const std::lock_guard lock(mutex_);
    const auto [at, is_new] = causes_.try_emplace(repository_id, cause);
    if (is_new) return true;
    if (at->second == cause) return false;
    at->second = cause;
    return true;
  }

  void set_available(const std::string& repository_id) {
    const std::lock_guard lock(mutex_);
    causes_.erase(repository_id);
  }

  /// "" when it can be used.
  std::string cause(const std::string& repository_id) const {
    const std::lock_guard lock(mutex_);
    const auto found = causes_.find(repository_id);
    return found == causes_.end() ? "" : found->second;
  }

  std::map<std::string, std::string> causes() const {
    const std::lock_guard lock(mutex_);
    return causes_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::string> causes_;
};

}  // namespace engine
