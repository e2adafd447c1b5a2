// SPDX-License-Identifier: Apache-2.0
#include "app/operate/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "app/operate/columns.h"

namespace app {
namespace {

/// Away from a terminal, so many unchanged states make no line.
constexpr unsigned kQuietRounds = 30;

std::string left_text(const nlohmann::json& backup) {
  const auto number = [&backup](const char* name) {
    const nlohmann::json value = member_of(backup, name);
    return value.is_number() ? value.get<double>() : 0;
  };
  const double rate = number("transfer_speed_bps");
  const double left = number("total_bytes") - number("bytes_transferred");
  if (rate < 1 || left <= 0) return "";
  return ", ETA " + duration_text(static_cast<uint64_t>(left / rate));
}

}  // namespace

std::string progress_text(const nlohmann::json& backup, const Style& style) {
  std::string amounts, rate, done;
  for (const Column& column : kProgress.columns) {
    const std::string value = cell_text(kProgress, column, backup, style);
    if (column.title == "rate") {
      rate = value;
    } else if (column.title == "done") {
      done = value;
    } else {
      amounts += fmt::format("{}{} {}", amounts.empty() ? "" : ", ", column.title, value);
    }
  }
  return fmt::format("{}  {}  {}{}", done, amounts, rate, left_text(backup));
}

ProgressLine::ProgressLine(const Style& style)
    : style_(style), is_terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const nlohmann::json& backup) {
  const std::string line = fmt::format("{}  {}", printable(backup.value("backup_id", "")),
                                       progress_text(backup, style_));
  if (is_terminal_) {
    const size_t width = width_of(line);
    const std::string blanks(width_ > width ? width_ - width : 0, ' ');
    fmt::print(stderr, "\r{}{}", line, blanks);
    width_ = width;
    return;
  }
  const std::string state = backup.value("state", "");
  if (state == last_state_ && ++left_out_ < kQuietRounds) return;
  last_state_ = state;
  left_out_ = 0;
  fmt::print(stderr, "{}\n", line);
}

void ProgressLine::end() {
  if (is_terminal_ && width_ > 0) fmt::print(stderr, "\n");
  width_ = 0;
}

}  // namespace app
