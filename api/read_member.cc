// SPDX-License-Identifier: Apache-2.0
#include "api/read_member.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace api {

const InputJson* member(const InputJson& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_member(const InputJson& object, const char* name) {
  const InputJson* found = member(object, name);
  return found ? found->get<std::string>() : "";
}

std::optional<bool> bool_member(const InputJson& object, const char* name) {
  const InputJson* found = member(object, name);
  if (!found) return std::nullopt;
  return found->get<bool>();
}

std::optional<int64_t> integer_member(const InputJson& object, const char* name) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const InputJson* found = member(object, name);
  if (!found) return std::nullopt;
  if (!found->is_number_unsigned()) return found->get<int64_t>();
  return static_cast<int64_t>(std::min(found->get<uint64_t>(), static_cast<uint64_t>(kMax)));
}

uint64_t count_member(const InputJson& object, const char* name) {
  return static_cast<uint64_t>(std::max<int64_t>(integer_member(object, name).value_or(0), 0));
}

double number_member(const InputJson& object, const char* name) {
  const InputJson* found = member(object, name);
  return found ? found->get<double>() : 0;
}

}  // namespace api
