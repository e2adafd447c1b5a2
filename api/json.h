// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace api {

/// What we write: members stay in the order in which they are given.
using Json = nlohmann::ordered_json;

/// What we read: lookups stay fast however many members somebody sends.
using InputJson = nlohmann::json;

/// One line. Bytes that are no UTF-8 (of a path, say) become U+FFFD.
std::string text_of(const Json& value);

}  // namespace api
