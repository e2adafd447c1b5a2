// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/values/types.h"

/// Tags, warnings, damages and readings as JSON text, the same in rows and in files: equal values
/// give equal bytes. Reading throws std::runtime_error when the text is something else. Pure.
namespace engine {

/// {"key":"value"}, by key.
std::string to_json(const Tags& tags);
Tags tags_from_json(std::string_view text);

/// [{"code":"disk_added","disk_id":1,"message":"..."}], in order; disk_id null when it has none.
std::string to_json(const std::vector<Warning>& warnings);
std::vector<Warning> warnings_from_json(std::string_view text);

/// [{"offset":0,"length":65536,"host_offset":327680,"what":"reads differently"}], in order.
std::string to_json(const std::vector<Damage>& damages);
std::vector<Damage> damages_from_json(std::string_view text);

/// {"reader":"libqcow","stored_bytes":65536,"covered_bytes":65536,"damaged_bytes":0,"problem":"",
/// "damaged":[]}.
std::string to_json(const SecondReading& reading);
SecondReading second_reading_from_json(std::string_view text);

}  // namespace engine
