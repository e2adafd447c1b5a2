// SPDX-License-Identifier: Apache-2.0
#include "api/request_counts.h"

#include <fmt/format.h>

namespace api {
namespace {

/// "/api/v1/backups/{backup_id}" is about "backups", "/metrics" about "metrics".
std::string subject_of(std::string_view pattern) {
  constexpr std::string_view kBelow = "/api/v1/";
  if (pattern.starts_with(kBelow)) pattern.remove_prefix(kBelow.size() - 1);
  if (pattern.size() < 2) return pattern.empty() ? "other" : "page";
  return std::string(pattern.substr(1, pattern.find('/', 1) - 1));
}

}  // namespace

void RequestCounts::note(std::string_view pattern, int status) {
  std::pair key{subject_of(pattern), fmt::format("{}xx", status / 100)};
  const std::lock_guard lock(mutex_);
  ++counts_[std::move(key)];
}

RequestCounts::Counts RequestCounts::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace api
