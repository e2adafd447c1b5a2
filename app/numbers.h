// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <map>
#include <string>

#include "app/options.h"

/// Values of options that are refused in a sentence: whole numbers in a range, words of a few.
namespace app {

/// Throws UsageError.
template <class T>
T whole_number(const std::string& text, T least, T most) {
  T number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < least || number > most) {
    throw UsageError(fmt::format("\"{}\" is not a number from {} to {}", text, least, most));
  }
  return number;
}

/// The value of `words` whose word is `text`. Throws UsageError.
template <class T>
T one_of(const std::string& text, const std::map<std::string, T>& words) {
  if (const auto found = words.find(text); found != words.end()) return found->second;
  std::string choices;
  for (const auto& [word, value] : words) choices += (choices.empty() ? "" : ", ") + word;
  throw UsageError(fmt::format("\"{}\" is not one of {}", text, choices));
}

/// The last name that an option is declared with: "--port" of "-p,--port".
inline std::string long_name(const std::string& names) {
  return names.substr(names.rfind(',') + 1);
}

/// Declares an option whose value `take` makes something of. What that throws is named after the
/// option.
template <class Take>
CLI::Option* add_value(CLI::App& command, const std::string& names, Take take,
                       const std::string& help, const std::string& metavar) {
  const auto named = [take, name = long_name(names)](const std::string& text) {
    try {
      take(text);
    } catch (const UsageError& error) {
      throw UsageError(fmt::format("{}: {}", name, error.what()));
    }
  };
  return command.add_option_function<std::string>(names, named, help)->type_name(metavar);
}

template <class T>
CLI::Option* add_number(CLI::App& command, const std::string& names, T& variable,
                        std::type_identity_t<T> least, std::type_identity_t<T> most,
                        const std::string& help) {
  const auto take = [&variable, least, most](const std::string& text) {
    variable = whole_number<T>(text, least, most);
  };
  return add_value(command, names, take, help, "N");
}

}  // namespace app
