// SPDX-License-Identifier: Apache-2.0
#include "app/operate/text.h"

#include <fmt/format.h>
#include <langinfo.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <clocale>
#include <cstdlib>
#include <ctime>

#include "app/setting_kinds.h"
#include "engine/values/time_text.h"

namespace app {
namespace {

/// A time this many seconds ahead is of now: the server's clock need not be that of this machine,
/// and what it has just done may be rounded up.
constexpr int64_t kClocksApart = 5;

bool is_size(std::string_view name) {
  return name.ends_with("_bytes") || name.starts_with("bytes_");
}

/// "time" of "time|null" and "time?".
std::string_view bare(std::string_view type) {
  if (type.ends_with('?')) type.remove_suffix(1);
  return type.substr(0, type.find('|'));
}

bool is_time(std::string_view name, std::string_view type) {
  return bare(type) == "time" || (bare(type) == "string" && name.ends_with("_at"));
}

std::string number_text(const nlohmann::json& value, std::string_view name, const Style& style) {
  if (is_size(name)) return size_text(value.get<uint64_t>(), style);
  if (name.ends_with("_seconds")) return duration_value(std::chrono::seconds(value.get<int64_t>()));
  if (name.ends_with("_bps")) return size_text(value.get<uint64_t>(), style) + "/s";
  if (name.ends_with("_percent")) return fmt::format("{:.1f} %", value.get<double>());
  return value.is_number_float() ? fmt::format("{:.2f}", value.get<double>()) : value.dump();
}

/// Of the local zone.
std::string local_text(engine::Time time) {
  const auto seconds = static_cast<std::time_t>(engine::unix_seconds(time));
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  const size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
  return {text.data(), length};
}

}  // namespace

Style style_here(bool bytes, bool utc) {
  std::setlocale(LC_CTYPE, "");
  const char* const no_colour = std::getenv("NO_COLOR");
  const char* const terminal = std::getenv("TERM");
  Style style{.bytes = bytes, .utc = utc};
  style.colour = ::isatty(STDOUT_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0') &&
                 (terminal == nullptr || std::string_view(terminal) != "dumb");
  style.utf8 = std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  style.now = engine::from_unix_seconds(std::time(nullptr));
  return style;
}

std::string size_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto amount = static_cast<double>(bytes);
  size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < std::size(kUnits); ++unit) amount /= 1024;
  if (amount >= 1023.95) return fmt::format("1.0 {}", kUnits[unit + 1]);  // it would be "1024.0"
  return fmt::format("{:.1f} {}", amount, kUnits[unit]);
}

std::string size_text(uint64_t bytes, const Style& style) {
  return style.bytes ? fmt::format("{} B", bytes) : size_text(bytes);
}

std::string duration_text(uint64_t seconds) {
  constexpr uint64_t kMinute = 60, kHour = 60 * kMinute, kDay = 24 * kHour;
  if (seconds < 2 * kMinute) return fmt::format("{} s", seconds);
  if (seconds < 2 * kHour) return fmt::format("{} min", seconds / kMinute);
  if (seconds < 2 * kDay) return fmt::format("{} h", seconds / kHour);
  return fmt::format("{} d", seconds / kDay);
}

std::string time_text(engine::Time time, const Style& style) {
  const std::string text = style.utc ? engine::to_rfc3339(time) : local_text(time);
  int64_t age = (style.now - time).count();
  if (age < 0 && age >= -kClocksApart) age = 0;
  if (age < 0) return fmt::format("{}, in {}", text, duration_text(static_cast<uint64_t>(-age)));
  return fmt::format("{}, {} ago", text, duration_text(static_cast<uint64_t>(age)));
}

std::string value_text(const nlohmann::json& value, std::string_view name, std::string_view type,
                       std::string_view missing, const Style& style) {
  if (value.is_null() || value == "") return std::string(missing);
  if (name.ends_with("_seconds") && value == 0) return std::string(missing);
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number()) return number_text(value, name, style);
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    const auto time = is_time(name, type) ? engine::from_rfc3339(text) : std::nullopt;
    return time ? time_text(*time, style) : printable(text);
  }
  if (value.is_array() || value.is_object()) {
    std::string text;
    for (const auto& [key, element] : value.items()) {
      text += text.empty() ? "" : ", ";
      if (value.is_object()) text += key + "=";
      text += element.is_string() ? element.get<std::string>() : element.dump();
    }
    return text.empty() ? std::string(missing) : printable(text);
  }
  return printable(value.dump());
}

bool is_quantity(std::string_view type) {
  return bare(type) == "integer" || bare(type) == "number";
}

std::string printable(std::string_view text) {
  std::string clean(text);
  for (size_t at = 0; at < clean.size(); ++at) {
    const auto byte = static_cast<unsigned char>(clean[at]);
    const bool is_c1 =
        byte == 0xc2 && at + 1 < clean.size() && static_cast<unsigned char>(clean[at + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f) clean[at] = '?';
    if (is_c1) clean.replace(at, 2, "?");
  }
  return clean;
}

size_t width_of(std::string_view text) {
  size_t width = 0;
  for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return width;
}

Tone tone_of(std::string_view word) {
  for (const std::string_view good : {"completed", "sound", "ready", "healthy"}) {
    if (word == good) return Tone::good;
  }
  for (const std::string_view busy : {"running", "preparing", "finalizing", "pending", "started"}) {
    if (word == busy) return Tone::busy;
  }
  for (const std::string_view bad :
       {"failed", "damaged", "unavailable", "not ready", "unhealthy"}) {
    if (word == bad) return Tone::bad;
  }
  return Tone::plain;
}

std::string coloured(std::string_view text, Tone tone, const Style& style) {
  if (!style.colour || tone == Tone::plain) return std::string(text);
  const auto code = [tone] {
    switch (tone) {
      case Tone::good:
        return "32";
      case Tone::busy:
        return "33";
      case Tone::bad:
        return "1;31";
      case Tone::faint:
        return "2";
      default:
        return "1";
    }
  };
  return fmt::format("\033[{}m{}\033[0m", code(), text);
}

}  // namespace app
