// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "api/json.h"

/// Members of a request body whose types were checked before. A null member is an absent one.
namespace api {

/// The title of a refused body, but of those that name what they would have made.
constexpr const char* kInvalidBody = "invalid request body";

const InputJson* member(const InputJson& object, const char* name);

/// "" when absent.
std::string text_member(const InputJson& object, const char* name);
std::optional<bool> bool_member(const InputJson& object, const char* name);
/// Integers above int64_t are clamped to its maximum.
std::optional<int64_t> integer_member(const InputJson& object, const char* name);
/// A size or count that somebody else measured: 0 when absent or negative.
uint64_t count_member(const InputJson& object, const char* name);
/// 0 when absent.
double number_member(const InputJson& object, const char* name);

}  // namespace api
