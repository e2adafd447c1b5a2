// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace api {

/// How many requests were answered, by what they are about and how: for /metrics. Any thread.
class RequestCounts {
 public:
  /// By (subject, class of the status): {"backups", "2xx"}.
  using Counts = std::map<std::pair<std::string, std::string>, uint64_t>;

  /// `pattern` of the route, "" for a path without one, which is of the subject "other": so that
  /// whoever asks for made-up paths makes no new names.
  void note(std::string_view pattern, int status);
  Counts counts() const;

 private:
  mutable std::mutex mutex_;
  Counts counts_;
};

}  // namespace api
