#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/values/types.h"

/// Tags and warnings as JSON text, the same in rows and in files: equal values give equal bytes.
/// Reading throws std::runtime_error when the text is something else. Pure.
namespace engine {

/// {"key":"value"}, by key.
std::string to_json(const Tags& tags);
Tags tags_from_json(std::string_view text);

/// [{"code":"disk_added","disk_id":1,"message":"..."}], in order; disk_id null when it has none.
std::string to_json(const std::vector<Warning>& warnings);
std::vector<Warning> warnings_from_json(std::string_view text);

}  // namespace engine
