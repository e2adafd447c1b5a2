#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

/// One line per event on standard error. Thread-safe: a line leaves in one write.
namespace io {

enum class LogLevel : uint8_t { debug, info, warning, error };
enum class LogFormat : uint8_t { text, json };

/// Set once by the application, before other threads start.
void configure_log(LogFormat format, LogLevel least);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace io
