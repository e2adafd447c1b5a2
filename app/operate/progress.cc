// SPDX-License-Identifier: Apache-2.0
#include "app/operate/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

namespace app {
namespace {

/// Away from a terminal, so many unchanged states make no line.
constexpr unsigned kQuietRounds = 30;

std::string left_text(const nlohmann::json& backup) {
  const nlohmann::json left = member_of(backup, "seconds_left");
  return left.is_number_unsigned() ? ", ETA " + duration_text(left.get<uint64_t>()) : "";
}

/// How many characters a line of the terminal has.
size_t terminal_columns() {
  winsize size{};
  const bool is_known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : 80;
}

/// What is written over has to stay on one line of the terminal: the id goes first, then the end.
std::string fitted(const std::string& id, const std::string& progress) {
  const size_t room = terminal_columns() - 1;  // a full line would wrap
  std::string line = id + "  " + progress;
  if (width_of(line) > room) line = progress;
  if (width_of(line) > room) line.resize(room);  // ASCII, as is all but names
  return line;
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

std::string share_text(const Selection& progress, const nlohmann::json& task, const Style& style) {
  const Column &done = progress.columns.at(0), &whole = progress.columns.at(1);
  const auto part = member_of(task, done.member).get<double>();
  const auto all = member_of(task, whole.member).get<double>();
  return fmt::format("{:.1f} %  {} of {}", all > 0 ? 100 * part / all : 0,
                     cell_text(progress, done, task, style),
                     cell_text(progress, whole, task, style));
}

ProgressLine::ProgressLine() : is_terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(const std::string& name, const std::string& state,
                        const std::string& progress) {
  const std::string id = printable(name);
  if (is_terminal_) {
    const std::string line = fitted(id, progress);
    const size_t width = width_of(line);
    const std::string blanks(width_ > width ? width_ - width : 0, ' ');
    fmt::print(stderr, "\r{}{}", line, blanks);
    width_ = width;
    return;
  }
  if (state == last_state_ && ++left_out_ < kQuietRounds) return;
  last_state_ = state;
  left_out_ = 0;
  fmt::print(stderr, "{}  {}\n", id, progress);
}

void ProgressLine::end() {
  if (is_terminal_ && width_ > 0) fmt::print(stderr, "\n");
  width_ = 0;
}

}  // namespace app
