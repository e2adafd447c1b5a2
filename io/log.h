// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

/// One line per event on standard error, or an entry of the journal when that is where standard
/// error leads. Thread-safe: a line leaves in one write. A line for which there is no memory is
/// lost: its writer is busy with something more important.
namespace io {

enum class LogLevel : uint8_t { debug, info, warning, error };
enum class LogFormat : uint8_t { text, json };

/// What an event is about, for programs that read the log: members of a JSON line ("job", …),
/// fields of the journal (VARVE_JOB=, …). The text says it as well. Views, for the call only.
struct LogFields {
  std::string_view job{};          ///< id of the backup
  std::string_view vm{};           ///< its name
  std::optional<uint32_t> disk{};  ///< index
  std::string_view error{};        ///< the cause alone
};

/// By the application before other threads start, and again when its configuration has changed.
void configure_log(LogFormat format, LogLevel least);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, const LogFields& fields, std::string_view text);

template <class... Args>
void log(LogLevel level, const LogFields& fields, fmt::format_string<Args...> format,
         Args&&... args) {
  if (!log_enabled(level)) return;
  try {
    log_line(level, fields, fmt::format(format, std::forward<Args>(args)...));
  } catch (const std::bad_alloc&) {
  }
}

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  log(level, LogFields(), format, std::forward<Args>(args)...);
}

/// "1.5 GiB", "512 bytes", for people.
std::string bytes_text(uint64_t bytes);

}  // namespace io
