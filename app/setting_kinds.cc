// SPDX-License-Identifier: Apache-2.0
#include "app/setting_kinds.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace app {

bool yes_or_no(const std::string& text) {
  return one_of<bool>(text, {{"true", true}, {"false", false}});
}

std::string word_of(const Setting& setting) {
  std::string word = setting.name;
  std::ranges::replace(word, '-', '_');
  return word;
}

bool takes_numbers(const Setting& setting) {
  return setting.metavar == "N" || setting.metavar == "SIZE" || setting.metavar == "TIME";
}

bool takes_truth(const Setting& setting) { return setting.is_flag || setting.metavar == "BOOL"; }

Setting text_setting(std::string name, std::string metavar, std::string help,
                     Member<std::string> member) {
  Setting setting{std::move(name), std::move(metavar), std::move(help), {}};
  setting.apply = [member](ServeOptions& options, const Setting::Values& values) {
    member(options) = values.back();
  };
  setting.show = [member](ServeOptions& options) -> Setting::Values { return {member(options)}; };
  return setting;
}

Setting list_setting(std::string name, std::string metavar, std::string help,
                     Member<std::vector<std::string>> member) {
  Setting setting{std::move(name), std::move(metavar), std::move(help), {}, true};
  setting.apply = [member](ServeOptions& options, const Setting::Values& values) {
    member(options) = values;
  };
  setting.show = [member](ServeOptions& options) { return member(options); };
  return setting;
}

Setting duration_setting(std::string name, std::string help, Member<io::Duration> member) {
  Setting setting{std::move(name), "TIME", std::move(help), {}};
  setting.apply = [member](ServeOptions& options, const Setting::Values& values) {
    member(options) = parse_duration(values.back());
  };
  setting.show = [member](ServeOptions& options) -> Setting::Values {
    return {duration_value(member(options))};
  };
  return setting;
}

Setting size_setting(std::string name, std::string help, Member<uint64_t> member,
                     uint64_t (*parse)(std::string_view text)) {
  Setting setting{std::move(name), "SIZE", std::move(help), {}};
  setting.apply = [=](ServeOptions& options, const Setting::Values& values) {
    member(options) = parse(values.back());
  };
  setting.show = [member](ServeOptions& options) -> Setting::Values {
    return {size_value(member(options))};
  };
  return setting;
}

Setting truth_setting(std::string name, std::string help, Member<bool> member) {
  Setting setting{std::move(name), "BOOL", std::move(help), {}};
  setting.apply = [member](ServeOptions& options, const Setting::Values& values) {
    member(options) = yes_or_no(values.back());
  };
  setting.show = [member](ServeOptions& options) -> Setting::Values {
    return {member(options) ? "true" : "false"};
  };
  return setting;
}

Setting flag_setting(std::string name, std::string help, Member<bool> member) {
  Setting setting = truth_setting(std::move(name), std::move(help), member);
  setting.metavar.clear();
  setting.is_flag = true;
  return setting;
}

std::string duration_value(io::Duration duration) {
  using namespace std::chrono;
  const auto count = duration_cast<milliseconds>(duration).count();
  if (count == 0) return "0";
  struct Unit {
    int64_t milliseconds;
    const char* name;
  };
  static constexpr std::array<Unit, 4> kUnits = {
      {{24 * 3'600'000, "d"}, {3'600'000, "h"}, {60'000, "m"}, {1000, "s"}}};
  for (const auto& [unit, name] : kUnits) {
    if (count % unit == 0) return fmt::format("{}{}", count / unit, name);
  }
  return fmt::format("{}ms", count);
}

std::string size_value(uint64_t bytes) {
  for (const auto& [shift, name] : {std::pair(40, "T"), {30, "G"}, {20, "M"}, {10, "K"}}) {
    if (bytes != 0 && bytes % (uint64_t{1} << shift) == 0) {
      return fmt::format("{}{}", bytes >> shift, name);
    }
  }
  return std::to_string(bytes);
}

}  // namespace app
