// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/values/views.h"

namespace api {

/// A page of the Prometheus text format while it is being written: families one after the other,
/// each followed by its samples. Whole numbers stay whole, whatever their size.
class MetricsPage {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

  void family(std::string_view name, std::string_view type, std::string_view help);

  template <class Number>
  void sample(std::string_view name, const Labels& labels, Number value) {
    put(name, labels, fmt::format("{}", value));
  }

  /// A family of one sample without labels, or of none where there is no value.
  template <class Number>
  void only(std::string_view name, std::string_view type, std::string_view help,
            std::optional<Number> value) {
    family(name, type, help);
    if (value) sample(name, {}, *value);
  }

  /// A family with a sample for each element of a map of counts; `word` says its label's value.
  template <class Counts, class Word>
  void counts(std::string_view name, std::string_view type, std::string_view help,
              std::string_view label, const Counts& counts, const Word& word) {
    family(name, type, help);
    for (const auto& [key, count] : counts) sample(name, {{label, word(key)}}, count);
  }

  void histogram(std::string_view name, std::string_view help, const engine::Histogram& from);

  std::string take() { return std::move(text_); }

 private:
  void put(std::string_view name, const Labels& labels, std::string_view value);

  std::string text_;
};

}  // namespace api
