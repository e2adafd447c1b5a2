// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/json.h"

/// The shapes of all JSON objects, written once: requests are checked against them, and
/// /openapi.json is generated from them.
///
/// A member's type is a word: string, integer, number, boolean, time, object, texts (a string or an
/// array of strings); a schema's name; [T] for an array, {T} for an object used as a map,
/// string:a,b for some words only; T|null where null is a value, and T? at the end where the member
/// may be left out. Pure; static data.
namespace api {

struct Member {
  std::string_view name, type, about;
};

struct Schema {
  std::string_view name, about;
  std::vector<Member> members;
};

/// Every schema there is, by subject.
std::span<const Schema> all_schemas();
/// Nothing for a name that no schema has.
const Schema* find_schema(std::string_view name);

/// True for a type that ends in '?'.
bool is_optional(std::string_view type);

/// The JSON Schema of one such type, with $ref to #/components/schemas.
Json json_schema_of(std::string_view type);
Json json_schema_of(const Schema& schema);

/// Why `value` has not the members and types of `schema`, naming the member; nothing when it has.
/// Null counts as left out, unknown members are ignored, no member is required and no word is
/// refused: those are the handlers' to say.
std::optional<std::string> type_mismatch(const InputJson& value, const Schema& schema);

}  // namespace api
