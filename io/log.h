#pragma once

#include <fmt/format.h>

#include <new>
#include <string_view>
#include <utility>

/// One line per event on standard error. Thread-safe: a line leaves in one write. A line for which
/// there is no memory is lost: its writer is busy with something more important.
namespace io {

enum class LogLevel : uint8_t { debug, info, warning, error };
enum class LogFormat : uint8_t { text, json };

/// Set once by the application, before other threads start.
void configure_log(LogFormat format, LogLevel least);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (!log_enabled(level)) return;
  try {
    log_line(level, fmt::format(format, std::forward<Args>(args)...));
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace io
