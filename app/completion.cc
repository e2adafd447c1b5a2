// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "app/options.h"
#include "app/reference.h"
#include "app/verbs.h"

namespace app {
namespace {

/// What stands after an option, as far as a shell can help with it.
enum class Operand { none, anything, file, directory };

struct CompletedOption {
  std::string name;  ///< "--json"
  std::string about;
  Operand operand = Operand::none;
};

struct CompletedVerb {
  std::string name, summary;
  std::vector<CompletedOption> options;
  bool takes_files = false;  ///< its operands may be files
};

Operand operand_of(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0) return Operand::none;
  const std::string type = option.get_type_name();
  if (type.find("DIR") != std::string::npos) return Operand::directory;
  for (const char* file : {"FILE", "PATH", "TARGET", "SOURCE"}) {
    if (type.find(file) != std::string::npos) return Operand::file;
  }
  return Operand::anything;
}

/// Up to the first pause, without what a shell would take for its own.
std::string short_text(const std::string& text) {
  std::string line = text;
  std::ranges::replace(line, '\n', ' ');
  for (const char* pause : {" (", "; ", ": ", ", ", ". "})
    line.resize(std::min(line.find(pause), line.size()));
  std::erase_if(line,
                [](char c) { return std::string_view("'\"`[]:$\\").find(c) != std::string::npos; });
  return line;
}

CompletedVerb completed_verb(const Verb& verb) {
  CompletedVerb done{std::string(verb.name), short_text(std::string(verb.summary)), {}};
  DeclaredVerb declared(verb);
  for (const CLI::Option* const option : declared.command().get_options()) {
    if (option->get_positional()) {
      const std::string& name = option->get_name(true);
      for (const char* file : {"FILE", "IMAGE", "TARGET", "PARENT"}) {
        if (name.find(file) != std::string::npos) done.takes_files = true;
      }
      continue;
    }
    if (option->get_group().empty()) continue;
    for (const std::string& name : option->get_lnames()) {
      done.options.push_back(
          {"--" + name, short_text(option->get_description()), operand_of(*option)});
    }
  }
  return done;
}

std::vector<CompletedVerb> completed_verbs() {
  std::vector<CompletedVerb> verbs;
  for (const Verb& verb : all_verbs()) {
    if (verb.is_shown()) verbs.push_back(completed_verb(verb));
  }
  return verbs;
}

/// First words in their order, each once.
std::vector<std::string> first_words(const std::vector<CompletedVerb>& verbs) {
  std::vector<std::string> words;
  for (const CompletedVerb& verb : verbs) {
    const std::string word = verb.name.substr(0, verb.name.find(' '));
    if (words.empty() || words.back() != word) words.push_back(word);
  }
  return words;
}

/// The second words of those that begin with `first`.
std::vector<std::string> second_words(const std::vector<CompletedVerb>& verbs,
                                      const std::string& first) {
  std::vector<std::string> words;
  for (const CompletedVerb& verb : verbs) {
    if (verb.name.starts_with(first + " ")) words.push_back(verb.name.substr(first.size() + 1));
  }
  return words;
}

std::string spaced(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

/// "a|b" of the options whose operand is of that kind; "-" when there are none.
std::string pattern_of(const CompletedVerb& verb, Operand operand) {
  std::string text;
  for (const CompletedOption& option : verb.options) {
    if (option.operand == operand) text += (text.empty() ? "" : "|") + option.name;
  }
  return text.empty() ? "-" : text;
}

std::string option_names(const CompletedVerb& verb) {
  std::vector<std::string> names;
  for (const CompletedOption& option : verb.options) names.push_back(option.name);
  return spaced(names);
}

std::string bash_script() {
  const std::vector<CompletedVerb> verbs = completed_verbs();
  const std::vector<std::string> firsts = first_words(verbs);
  std::string families, cases;
  for (const std::string& first : firsts) {
    const std::vector<std::string> seconds = second_words(verbs, first);
    if (seconds.empty()) continue;
    families += fmt::format(
        "    {})\n"
        "      if [ \"$COMP_CWORD\" -eq 2 ]; then\n"
        "        COMPREPLY=($(compgen -W \"{} --help\" -- \"$cur\"))\n"
        "        return\n"
        "      fi\n"
        "      verb=\"$verb ${{COMP_WORDS[2]}}\" ;;\n",
        first, spaced(seconds));
  }
  for (const CompletedVerb& verb : verbs) {
    cases += fmt::format(
        "    \"{}\")\n"
        "      case $prev in\n"
        "        {}) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
        "        {}) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n"
        "        {}) return ;;\n"
        "      esac\n"
        "      options=\"{}\"\n"
        "      files={} ;;\n",
        verb.name, pattern_of(verb, Operand::file), pattern_of(verb, Operand::directory),
        pattern_of(verb, Operand::anything), option_names(verb), verb.takes_files ? "yes" : "");
  }
  return fmt::format(
      "# Completion of varve for bash, made by `varve completion bash`.\n"
      "_varve() {{\n"
      "  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}\n"
      "  local verb=${{COMP_WORDS[1]}} options= files=\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W \"{} --help --version\" -- \"$cur\"))\n"
      "    return\n"
      "  fi\n"
      "  case $verb in\n"
      "    help)\n"
      "      COMPREPLY=($(compgen -W \"{}\" -- \"$cur\"))\n"
      "      return ;;\n"
      "{}"
      "  esac\n"
      "  case $verb in\n"
      "{}"
      "  esac\n"
      "  case $cur in\n"
      "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;;\n"
      "    *) [ -z \"$files\" ] || {{ compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); "
      "}} ;;\n"
      "  esac\n"
      "}}\n"
      "complete -F _varve varve\n",
      spaced(firsts), spaced(firsts), families, cases);
}

std::string zsh_script() {
  const std::vector<CompletedVerb> verbs = completed_verbs();
  std::string commands, cases;
  for (const std::string& first : first_words(verbs)) {
    const auto verb = std::find_if(verbs.begin(), verbs.end(), [&](const CompletedVerb& each) {
      return each.name == first || each.name.starts_with(first + " ");
    });
    const std::string family(family_summary(first));
    commands +=
        fmt::format("    '{}:{}'\n", first, family.empty() ? verb->summary : short_text(family));
  }
  for (const CompletedVerb& verb : verbs) {
    std::string arguments;
    for (const CompletedOption& option : verb.options) {
      const char* const operand = option.operand == Operand::file        ? ":file:_files"
                                  : option.operand == Operand::directory ? ":directory:_files -/"
                                  : option.operand == Operand::anything  ? ":value:()"
                                                                         : "";
      arguments += fmt::format(" \\\n        '*{}[{}]{}'", option.name, option.about, operand);
    }
    cases += fmt::format("    '{}')\n      _arguments{} \\\n        '{}' ;;\n", verb.name,
                         arguments, verb.takes_files ? "*:file:_files" : "*:operand:()");
  }
  std::string families;
  for (const std::string& first : first_words(verbs)) {
    const std::vector<std::string> seconds = second_words(verbs, first);
    if (seconds.empty()) continue;
    families += fmt::format(
        "    {})\n"
        "      if (( CURRENT == 3 )); then\n"
        "        compadd {}\n"
        "        return\n"
        "      fi\n"
        "      verb=\"$verb $words[3]\"\n"
        "      shift words; (( CURRENT-- )) ;;\n",
        first, spaced(seconds));
  }
  return fmt::format(
      "#compdef varve\n"
      "# Completion of varve for zsh, made by `varve completion zsh`.\n"
      "_varve() {{\n"
      "  local -a commands\n"
      "  commands=(\n{}  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  local verb=$words[2]\n"
      "  case $verb in\n"
      "    help) _describe command commands; return ;;\n"
      "{}"
      "  esac\n"
      "  shift words; (( CURRENT-- ))\n"
      "  case $verb in\n"
      "{}"
      "  esac\n"
      "}}\n"
      "_varve \"$@\"\n",
      commands, families, cases);
}

std::string fish_script() {
  const std::vector<CompletedVerb> verbs = completed_verbs();
  std::string text =
      "# Completion of varve for fish, made by `varve completion fish`.\n"
      "complete -c varve -f\n"
      "complete -c varve -n __fish_use_subcommand -l help -d 'print the commands'\n"
      "complete -c varve -n __fish_use_subcommand -l version -d 'print the version'\n";
  for (const std::string& first : first_words(verbs)) {
    const std::vector<std::string> seconds = second_words(verbs, first);
    const auto verb = std::find_if(verbs.begin(), verbs.end(),
                                   [&](const CompletedVerb& each) { return each.name == first; });
    const std::string family(family_summary(first));
    text += fmt::format("complete -c varve -n __fish_use_subcommand -a {} -d '{}'\n", first,
                        seconds.empty() ? verb->summary : short_text(family));
    if (seconds.empty()) continue;
    text += fmt::format(
        "complete -c varve -n '__fish_seen_subcommand_from {}; and not "
        "__fish_seen_subcommand_from {}' -a '{}'\n",
        first, spaced(seconds), spaced(seconds));
  }
  for (const CompletedVerb& verb : verbs) {
    const size_t space = verb.name.find(' ');
    std::string seen = "__fish_seen_subcommand_from " + verb.name.substr(0, space);
    if (space != std::string::npos) {
      seen += "; and __fish_seen_subcommand_from " + verb.name.substr(space + 1);
    }
    for (const CompletedOption& option : verb.options) {
      const bool is_path = option.operand == Operand::file || option.operand == Operand::directory;
      text += fmt::format("complete -c varve -n '{}' -l {} -d '{}'{}\n", seen,
                          option.name.substr(2), option.about,
                          is_path                               ? " -r -F"
                          : option.operand == Operand::anything ? " -x"
                                                                : "");
    }
    if (verb.takes_files) text += fmt::format("complete -c varve -n '{}' -F\n", seen);
  }
  return text;
}

}  // namespace

std::string completion_script(std::string_view shell) {
  if (shell == "bash") return bash_script();
  if (shell == "zsh") return zsh_script();
  if (shell == "fish") return fish_script();
  throw UsageError(
      fmt::format("there are completions for bash, zsh and fish, not for '{}'", shell));
}

}  // namespace app
