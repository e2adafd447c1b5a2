// SPDX-License-Identifier: Apache-2.0
#include "app/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "app/nearest.h"
#include "app/options.h"

namespace app {
namespace {

using Words = std::vector<std::string>;

bool is_help(const std::string& word) { return word == "-h" || word == "--help"; }

Invocation print(std::string text) {
  return {PrintText{text}, [text] {
            std::fputs(text.c_str(), stdout);
            return 0;
          }};
}

/// The second words of the verbs that begin with `first`; the first words of all for "".
Words words_after(std::string_view first) {
  Words words;
  for (const Verb& verb : all_verbs()) {
    if (!verb.is_shown()) continue;
    if (first.empty()) {
      if (words.empty() || words.back() != verb.first_word()) words.emplace_back(verb.first_word());
    } else if (verb.first_word() == first && verb.name != first) {
      words.emplace_back(verb.name.substr(first.size() + 1));
    }
  }
  return words;
}

std::string joined(const Words& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

/// What was meant, or else where the known words stand.
std::string advice(const std::string& word, const Words& known, const std::string& help) {
  const std::string meant = did_you_mean(word, known);
  return meant.empty() ? fmt::format("; see varve {}--help", help) : meant;
}

/// The verb that the first words name, which are taken away.
const Verb& take_verb(Words& words) {
  const std::string first = words.front();
  const Words known = words_after("");
  if (first.starts_with('-')) {
    throw UsageError(fmt::format("unknown option '{}' before the command; options come after it{}",
                                 first, advice(first, {"--help", "--version"}, "")));
  }
  words.erase(words.begin());
  if (const Verb* const verb = find_verb(first)) return *verb;
  if (family_summary(first).empty()) {
    throw UsageError(fmt::format("unknown command '{}'{}", first, advice(first, known, "")));
  }
  Words seconds = words_after(first);
  if (words.empty() || words.front().starts_with('-')) {
    throw UsageError(fmt::format("varve {} needs one of {}; see varve {} --help", first,
                                 joined(seconds, ", "), first));
  }
  const std::string name = first + " " + words.front();
  const Verb* const verb = find_verb(name);
  if (verb == nullptr) {
    for (std::string& second : seconds) second = first + " " + second;
    throw UsageError(
        fmt::format("unknown command '{}'{}", name, advice(name, seconds, first + " ")));
  }
  words.erase(words.begin());
  return *verb;
}

/// Every option of the command as it can be typed, hidden ones left out.
Words options_of(const CLI::App& command) {
  Words options;
  for (const CLI::Option* const option : command.get_options()) {
    if (option->get_group().empty()) continue;
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  return options;
}

std::string unexpected(CLI::App& command, const std::string& said, const std::string& help) {
  if (!said.starts_with('-') || said == "-") {
    return fmt::format("unexpected argument '{}'; see varve {}--help", said, help);
  }
  const std::string option = said.substr(0, said.find('='));
  return fmt::format("unknown option '{}'{}", option, advice(option, options_of(command), help));
}

/// What CLI11 says, as a sentence about the words that were typed.
std::string sentence(const CLI::ParseError& error) {
  const std::string text = error.what();
  // "Could not convert: --json = x": only flags are left to CLI11, others say what they take.
  if (constexpr std::string_view kConvert = "Could not convert: "; text.starts_with(kConvert)) {
    const std::string said = text.substr(kConvert.size());
    return said.substr(0, said.find(" = ")) + " takes no value";
  }
  const std::string option = text.substr(0, text.find(':'));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    if (text.find("At Most") != std::string::npos) return option + " is given more than once";
    if (text.find("missing") != std::string::npos) return option + " needs a value";
  }
  if (dynamic_cast<const CLI::ExcludesError*>(&error) != nullptr) {
    const size_t word = text.find(" excludes ");
    if (word != std::string::npos) {
      return fmt::format("{} and {} exclude each other", text.substr(0, word),
                         text.substr(word + std::string_view(" excludes ").size()));
    }
  }
  return text;
}

Invocation parse_verb(const Verb& verb, Words words) {
  DeclaredVerb declared(verb);
  CLI::App& command = declared.command();
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  try {
    command.parse(std::move(words));
  } catch (const CLI::CallForHelp&) {
    return print(command.help());
  } catch (const CLI::ParseError& error) {
    const std::string help = std::string(verb.name) + " ";
    const Words left = command.remaining();
    const bool has_extra =
        dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !left.empty();
    throw UsageError(
        fmt::format("varve {}: {}", verb.name,
                    has_extra ? unexpected(command, left.front(), help)
                              : fmt::format("{}; see varve {}--help", sentence(error), help)));
  }
  Invocation parsed = declared.finish();
  parsed.is_server = verb.is_server;
  return parsed;
}

std::string main_help() {
  std::string text =
      "varve - an NBD server with a QCOW2 writer, for backups that are not lost\n\n"
      "Usage: varve COMMAND [OPTIONS]\n";
  std::string_view group;
  std::set<std::string_view> shown;
  for (const Verb& verb : all_verbs()) {
    if (!verb.is_shown() || !shown.insert(verb.first_word()).second) continue;
    if (verb.group != group) text += fmt::format("\n{}:\n", group = verb.group);
    const std::string_view family = family_summary(verb.first_word());
    const std::string_view summary = family.empty() ? verb.summary : family;
    text += fmt::format("  {:<12}{}\n", verb.first_word(), summary);
  }
  return text +
         "\n`varve serve` needs no option. Commands that ask a running server find it by "
         "--server,\n"
         "$VARVE_URL, or at http://127.0.0.1:8082. `varve help COMMAND` says more of each.\n";
}

std::string family_help(const std::string& first) {
  std::string text = fmt::format("{}\nUsage: varve {} COMMAND [OPTIONS]\n\nCommands:\n",
                                 family_summary(first), first);
  for (const std::string& second : words_after(first)) {
    text += fmt::format("  {:<12}{}\n", second, find_verb(first + " " + second)->summary);
  }
  return text + fmt::format("\n`varve help {} COMMAND` says more of each.\n", first);
}

}  // namespace

std::string help_text(const Words& given) {
  if (given.empty()) return main_help();
  if (given.size() == 1 && !family_summary(given.front()).empty())
    return family_help(given.front());
  Words words = given;
  const Verb& verb = take_verb(words);
  if (!words.empty()) {
    throw UsageError(fmt::format("varve {} has no command '{}'", verb.name, words.front()));
  }
  return DeclaredVerb(verb).command().help();
}

Invocation parse_command_line(int argc, const char* const* argv) {
  Words words(argv + std::min(argc, 1), argv + argc);
  if (words.empty() || is_help(words.front())) return print(help_text({}));
  if (words.front() == "-V" || words.front() == "--version") return print(version_text());
  if (words.size() == 2 && is_help(words[1]) && !family_summary(words[0]).empty()) {
    return print(help_text({words[0]}));
  }
  const Verb& verb = take_verb(words);
  return parse_verb(verb, std::move(words));
}

bool wants_json(int argc, const char* const* argv) {
  return std::any_of(argv, argv + argc, [](std::string_view word) { return word == "--json"; });
}

}  // namespace app
