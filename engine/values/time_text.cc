// SPDX-License-Identifier: Apache-2.0
#include "engine/values/time_text.h"

#include <fmt/format.h>

#include <charconv>

namespace engine {
namespace {

struct CivilTime {
  int year;
  unsigned month, day;
  int64_t hour, minute, second;
};

CivilTime civil(Time time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{time - day};
  return {int{date.year()},      unsigned{date.month()},  unsigned{date.day()},
          clock.hours().count(), clock.minutes().count(), clock.seconds().count()};
}

/// Takes digits and punctuation off the front of a text; once something does not fit, fails for
/// good.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  int digits(size_t count) {
    int value = 0;
    if (rest_.size() < count) return fail();
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + count, value);
    if (error != std::errc{} || end != rest_.data() + count || rest_[0] == '-') return fail();
    rest_.remove_prefix(count);
    return value;
  }

  char any_of(std::string_view allowed) {
    if (rest_.empty() || allowed.find(rest_[0]) == std::string_view::npos) {
      fail();
      return 0;
    }
    const char found = rest_[0];
    rest_.remove_prefix(1);
    return found;
  }

  void skip_fraction() {
    if (rest_.empty() || rest_[0] != '.') return;
    const size_t end = rest_.find_first_not_of("0123456789", 1);
    if (end == 1 || end == std::string_view::npos) {
      fail();
      return;
    }
    rest_.remove_prefix(end);
  }

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }

 private:
  int fail() {
    ok_ = false;
    rest_ = {};
    return 0;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace

std::string to_rfc3339(Time time) {
  const CivilTime at = civil(time);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", at.year, at.month, at.day, at.hour,
                     at.minute, at.second);
}

std::string to_rfc3339(const std::optional<Time>& time) {
  return time ? to_rfc3339(*time) : std::string();
}

std::string name_stamp(Time time) {
  const CivilTime at = civil(time);
  return fmt::format("{:04}{:02}{:02}-{:02}{:02}{:02}", at.year, at.month, at.day, at.hour,
                     at.minute, at.second);
}

std::optional<Time> from_rfc3339(std::string_view text) {
  using std::chrono::hours, std::chrono::minutes, std::chrono::seconds;
  Scanner in(text);
  const int year = in.digits(4);
  in.any_of("-");
  const int month = in.digits(2);
  in.any_of("-");
  const int day = in.digits(2);
  in.any_of("Tt");
  const int hour = in.digits(2);
  in.any_of(":");
  const int minute = in.digits(2);
  in.any_of(":");
  const int second = in.digits(2);
  in.skip_fraction();
  const char zone = in.any_of("Zz+-");
  minutes offset{0};
  if (zone == '+' || zone == '-') {
    const int offset_hours = in.digits(2);
    in.any_of(":");
    const int offset_minutes = in.digits(2);
    if (offset_hours > 23 || offset_minutes > 59) return std::nullopt;
    offset = hours{offset_hours} + minutes{offset_minutes};
    if (zone == '-') offset = -offset;
  }
  if (!in.ok() || !in.at_end()) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year{year},
                                         std::chrono::month{static_cast<unsigned>(month)},
                                         std::chrono::day{static_cast<unsigned>(day)}};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60) return std::nullopt;
  return std::chrono::sys_days{date} + hours{hour} + minutes{minute} + seconds{second} - offset;
}

}  // namespace engine
