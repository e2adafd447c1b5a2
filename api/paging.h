// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "api/call.h"
#include "api/routes.h"

/// Lists that are shown page by page: every one, when nothing is asked, as it was before there were
/// pages.
namespace api {

inline constexpr Parameter kLimit{"limit", "integer", "all when left out"};
inline constexpr Parameter kOffset{"offset", "integer", "how many are left out at the beginning"};

template <typename T>
struct Page {
  std::vector<T> shown;
  uint64_t total = 0;  ///< matches before limit and offset
};

/// What `limit` and `offset` of the query leave of `found`.
template <typename T>
Page<T> page_of(const Call& call, std::vector<T> found) {
  const uint64_t total = found.size();
  const uint64_t begin = std::min(call.query_number("offset", INT64_MAX).value_or(0), total);
  const uint64_t count =
      std::min(call.query_number("limit", INT64_MAX).value_or(total), total - begin);
  const auto at = [&](uint64_t index) { return found.begin() + static_cast<int64_t>(index); };
  found.erase(at(begin + count), found.end());
  found.erase(found.begin(), at(begin));
  return {std::move(found), total};
}

/// Leaves those whose `value` is what the query says under `name`; all when it says nothing.
template <typename T, typename Value>
void keep_matching(const Call& call, std::string_view name, std::vector<T>& found,
                   const Value& value) {
  const std::string wanted = call.query(name);
  if (wanted.empty()) return;
  std::erase_if(found, [&](const T& one) { return value(one) != wanted; });
}

/// The same of an enumerator. Throws the refusal for what is none of its words.
template <typename Enum, typename T, typename Value>
void keep_matching_word(const Call& call, std::string_view name, std::vector<T>& found,
                        const Value& value) {
  const std::string word = call.query(name);
  if (word.empty()) return;
  const auto wanted = engine::from_text<Enum>(word);
  if (!wanted) throw Call::invalid_query(name);
  std::erase_if(found, [&](const T& one) { return value(one) != *wanted; });
}

}  // namespace api
