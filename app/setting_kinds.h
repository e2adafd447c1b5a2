// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <map>
#include <string>
#include <vector>

#include "app/numbers.h"
#include "app/settings.h"

/// The kinds of settings: each parses its text, and says a value as that text.
namespace app {

/// Where a setting's value lies in the options.
template <class T>
using Member = T& (*)(ServeOptions&);

bool yes_or_no(const std::string& text);

Setting text_setting(std::string name, std::string metavar, std::string help,
                     Member<std::string> member);
/// May be given several times.
Setting list_setting(std::string name, std::string metavar, std::string help,
                     Member<std::vector<std::string>> member);
Setting duration_setting(std::string name, std::string help, Member<io::Duration> member);
/// `parse` also checks the limits.
Setting size_setting(std::string name, std::string help, Member<uint64_t> member,
                     uint64_t (*parse)(std::string_view text));
Setting flag_setting(std::string name, std::string help, Member<bool> member);
/// With a value, true or false, for what is on by default.
Setting truth_setting(std::string name, std::string help, Member<bool> member);

template <std::unsigned_integral T>
Setting number_setting(std::string name, std::string help, Member<T> member, T least, T most) {
  Setting setting{std::move(name), "N", std::move(help), {}};
  setting.apply = [=](ServeOptions& options, const Setting::Values& values) {
    member(options) = whole_number<T>(values.back(), least, most);
  };
  setting.show = [=](ServeOptions& options) -> Setting::Values {
    return {std::to_string(member(options))};
  };
  return setting;
}

template <class T>
Setting choice_setting(std::string name, std::string metavar, std::string help, Member<T> member,
                       std::map<std::string, T> words) {
  Setting setting{std::move(name), std::move(metavar), std::move(help), {}};
  setting.apply = [=](ServeOptions& options, const Setting::Values& values) {
    member(options) = one_of<T>(values.back(), words);
  };
  setting.show = [=](ServeOptions& options) -> Setting::Values {
    for (const auto& [word, value] : words) {
      if (value == member(options)) return {word};
    }
    return {};
  };
  return setting;
}

/// "90s", "10m", "7d": what parse_duration() reads as the same.
std::string duration_value(io::Duration duration);
/// "256M", "1000": what parse_size() reads as the same.
std::string size_value(uint64_t bytes);

}  // namespace app
