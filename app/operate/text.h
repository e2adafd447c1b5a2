// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "engine/values/types.h"

/// How the client verbs write values for people.
namespace app {

struct Style {
  bool bytes = false;   ///< sizes as exact bytes
  bool utc = false;     ///< times as RFC 3339 in UTC, else of the local zone
  bool colour = false;  ///< ANSI colours
  bool utf8 = false;    ///< lines of the tree as characters of Unicode
  engine::Time now{};   ///< ages are counted until here
};

/// Of standard output: colour on a terminal without NO_COLOR, the locale's characters.
Style style_here(bool bytes, bool utc);

/// "1.5 GiB"; "512 B".
std::string size_text(uint64_t bytes);
/// With bytes asked for, "1610612736 B".
std::string size_text(uint64_t bytes, const Style& style);
/// "45 s", "3 min", "2 h", "5 d".
std::string duration_text(uint64_t seconds);
/// "2026-11-30 15:17:04, 3 min ago"; a few seconds ahead are "0 s ago": clocks differ.
std::string time_text(engine::Time time, const Style& style);

/// A value as its type in the API's schema and its name say: `_bytes` is a size, `_at` a time,
/// `_seconds` a duration. `missing` stands for null, "", no seconds and what is left out.
std::string value_text(const nlohmann::json& value, std::string_view name, std::string_view type,
                       std::string_view missing, const Style& style);
/// Whether such values are aligned at their right ends.
bool is_quantity(std::string_view type);

/// Without control characters: what a server says cannot drive the terminal.
std::string printable(std::string_view text);
/// Characters, as a terminal counts them.
size_t width_of(std::string_view text);

/// What a word means for whoever looks at it.
enum class Tone { plain, good, busy, bad, faint, heading };
Tone tone_of(std::string_view word);
std::string coloured(std::string_view text, Tone tone, const Style& style);

}  // namespace app
