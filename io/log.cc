// SPDX-License-Identifier: Apache-2.0
#include "io/log.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <string>

#include "io/journal.h"
#include "io/utf8.h"

namespace io {
namespace {

std::atomic<LogFormat> log_format = LogFormat::text;
std::atomic<LogLevel> log_least = LogLevel::info;
std::atomic<bool> to_journal = false;

constexpr std::array<std::string_view, 4> kLevelNames = {"debug", "info", "warning", "error"};

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count();
  const time_t seconds = millis / 1000;
  tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text{};
  const size_t length = strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:03}Z", std::string_view(text.data(), length), millis % 1000);
}

/// A client's bytes that are no UTF-8 must not make the line unreadable.
std::string json_escaped(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  while (!text.empty()) {
    const char c = text.front();
    const size_t length = utf8_character_bytes(text);
    if (length == 0) {
      escaped += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      escaped += '\\';
      escaped += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      escaped += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      escaped += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return escaped;
}

std::string_view name_of(LogLevel level) { return kLevelNames.at(static_cast<size_t>(level)); }

std::string json_line(LogLevel level, const LogFields& fields, std::string_view text) {
  std::string line = fmt::format("{{\"time\":\"{}\",\"level\":\"{}\",\"message\":\"{}\"",
                                 timestamp(), name_of(level), json_escaped(text));
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) line += fmt::format(",\"{}\":\"{}\"", name, json_escaped(value));
  };
  add("job", fields.job);
  add("vm", fields.vm);
  if (fields.disk) line += fmt::format(",\"disk\":{}", *fields.disk);
  add("error", fields.error);
  return line + "}\n";
}

/// An event is one line; a client's text must not be able to forge a second one.
std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return line;
}

}  // namespace

void configure_log(LogFormat format, LogLevel least) {
  log_format = format;
  log_least = least;
  to_journal = format == LogFormat::text && stderr_is_journal();
}

bool log_enabled(LogLevel level) { return level >= log_least.load(std::memory_order_relaxed); }

void log_line(LogLevel level, const LogFields& fields, std::string_view text) {
  if (to_journal.load(std::memory_order_relaxed) &&
      send_to_journal(journal_entry(level, fields, one_line(text)))) {
    return;
  }
  const std::string line =
      log_format.load(std::memory_order_relaxed) == LogFormat::json
          ? json_line(level, fields, text)
          : fmt::format("{} {:<7} {}\n", timestamp(), name_of(level), one_line(text));
  // A log that cannot be written must not stop a backup.
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, line.data(), line.size());
}

std::string bytes_text(uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double count = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; count >= 1023.95 && unit + 1 < kUnits.size(); ++unit) count /= 1024;
  return fmt::format("{:.1f} {}", count, kUnits.at(unit));
}

}  // namespace io
