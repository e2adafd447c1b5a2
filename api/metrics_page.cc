// SPDX-License-Identifier: Apache-2.0
#include "api/metrics_page.h"

#include <fmt/format.h>

namespace api {
namespace {

// Label values may hold anything but a bare backslash, quote or line feed.
std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\') {
      text += "\\\\";
    } else if (c == '"') {
      text += "\\\"";
    } else if (c == '\n') {
      text += "\\n";
    } else {
      text += c;
    }
  }
  return text;
}

}  // namespace

void MetricsPage::family(std::string_view name, std::string_view type, std::string_view help) {
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void MetricsPage::put(std::string_view name, const Labels& labels, std::string_view value) {
  text_ += name;
  char before = '{';
  for (const auto& [label, word] : labels) {
    text_ += fmt::format("{}{}=\"{}\"", before, label, escaped(word));
    before = ',';
  }
  text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", value);
}

void MetricsPage::histogram(std::string_view name, std::string_view help,
                            const engine::Histogram& from) {
  family(name, "histogram", help);
  const std::string bucket = fmt::format("{}_bucket", name);
  uint64_t so_far = 0;
  for (size_t i = 0; i < from.bounds_seconds.size(); ++i) {
    if (i < from.counts.size()) so_far += from.counts[i];
    sample(bucket, {{"le", fmt::format("{}", from.bounds_seconds[i])}}, so_far);
  }
  if (from.counts.size() > from.bounds_seconds.size()) so_far += from.counts.back();
  sample(bucket, {{"le", "+Inf"}}, so_far);
  sample(fmt::format("{}_sum", name), {}, from.sum_seconds);
  sample(fmt::format("{}_count", name), {}, so_far);
}

}  // namespace api
