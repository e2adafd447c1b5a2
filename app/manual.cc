// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "app/exit_status.h"
#include "app/options.h"
#include "app/reference.h"
#include "app/settings.h"
#include "app/verbs.h"

/// The sources of the manual pages: scdoc(5).
namespace app {
namespace {

/// What scdoc would take for its own marks.
std::string escaped(std::string_view text) {
  std::string done;
  bool line_begins = true;
  for (const char c : text) {
    const bool is_mark = c == '\\' || c == '*' || c == '_' || c == '+' || c == '`' ||
                         (line_begins && std::string_view("#-.|[];").find(c) != std::string::npos);
    if (is_mark) done += '\\';
    done += c;
    line_begins = c == '\n';
  }
  return done;
}

std::string on_one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string heading(std::string_view text) { return fmt::format("# {}\n\n", text); }

std::string first_line(std::string_view page, int section) {
  return fmt::format("{}({}) \"varve {}\" \"varve\"\n\n", page, section, VARVE_VERSION);
}

/// Paragraphs; lines that begin with blanks stay as they are.
std::string paragraphs(const std::string& text) {
  std::string done, paragraph, block;
  const auto end_paragraph = [&] {
    if (!paragraph.empty()) done += escaped(paragraph) + "\n\n";
    paragraph.clear();
  };
  const auto end_block = [&] {
    if (!block.empty()) done += "```\n" + block + "```\n\n";
    block.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.starts_with("  ")) {
      end_paragraph();
      block += line + "\n";
      continue;
    }
    end_block();
    if (line.empty()) {
      end_paragraph();
    } else {
      paragraph += (paragraph.empty() ? "" : " ") + line;
    }
  }
  end_paragraph();
  end_block();
  return done;
}

std::string exit_table(bool with_rare) {
  std::string text;
  for (const ExitMeaning& meaning : kExitMeanings) {
    const bool rare = meaning.status == kIncomplete || meaning.status == kDamaged;
    if (rare && !with_rare) continue;
    text +=
        fmt::format("*{}*\n\t{}\n\n", static_cast<int>(meaning.status), escaped(meaning.meaning));
  }
  return text;
}

struct Footer {
  std::string description, exit_status;
};

/// A footer ends with what the exit status means, where it says so.
Footer taken_apart(const std::string& footer) {
  constexpr std::string_view kMark = "Exit status:";
  const size_t mark = footer.find(kMark);
  if (mark == std::string::npos) return {footer, ""};
  std::string rest = footer.substr(mark + kMark.size());
  if (rest.starts_with(' ')) rest.erase(0, 1);
  return {footer.substr(0, mark), rest.starts_with('\n') ? exit_table(false) : paragraphs(rest)};
}

std::string option_line(const CLI::Option& option) {
  std::string names;
  for (const std::string& name : option.get_snames()) {
    names += (names.empty() ? "*-" : ", *-") + escaped(name) + "*";
  }
  for (const std::string& name : option.get_lnames()) {
    names += (names.empty() ? "*--" : ", *--") + name + "*";
  }
  const bool has_value = option.get_items_expected_max() != 0;
  if (has_value) names += " _" + escaped(option.get_type_name()) + "_";
  return fmt::format("{}\n\t{}\n\n", names, escaped(on_one_line(option.get_description())));
}

std::string operands(CLI::App& command) {
  std::string text;
  for (const CLI::Option* const option : command.get_options()) {
    if (!option->get_positional()) continue;
    text += fmt::format("_{}_\n\t{}\n\n", escaped(option->get_name(true)),
                        escaped(on_one_line(option->get_description())));
  }
  return text;
}

/// Which of a command's options are meant: on a page of several commands, what they share stands
/// once.
enum class Which { all, own, shared };

bool is_meant(const CLI::Option& option, Which which) {
  if (option.get_positional() || option.get_group().empty()) return false;
  const std::string& group = option.get_group();
  const bool is_shared = group == "Output" || group == "Server" || option.check_lname("help");
  return which == Which::all || is_shared == (which == Which::shared);
}

/// By their groups, as the help shows them.
std::string options(CLI::App& command, Which which = Which::all) {
  std::vector<std::string> groups;
  for (const CLI::Option* const option : command.get_options()) {
    const std::string& group = option->get_group();
    const bool known = std::find(groups.begin(), groups.end(), group) != groups.end();
    if (!known && is_meant(*option, which)) groups.push_back(group);
  }
  std::string text;
  for (const std::string& group : groups) {
    if (groups.size() > 1 && group != "Options") text += fmt::format("## {}\n\n", group);
    for (const CLI::Option* const option : command.get_options()) {
      if (option->get_group() == group && is_meant(*option, which)) text += option_line(*option);
    }
  }
  return text;
}

std::string synopsis(const Verb& verb, CLI::App& command) {
  std::string text = fmt::format("*varve {}* [_OPTIONS_]", verb.name);
  for (const CLI::Option* const option : command.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = "_" + escaped(option->get_name(true)) + "_";
    text += option->get_required() ? " " + name : " [" + name + "]";
  }
  return text + "\n\n";
}

std::string see_also(const std::string& page) {
  return heading("SEE ALSO") + (page == "varve" ? "" : "*varve*(1), ") +
         "*varve.toml*(5), *qemu-img*(1), *nbdcopy*(1)\n";
}

std::string environment() {
  return heading("ENVIRONMENT") +
         "*VARVE\\_URL*\n\tthe server that commands ask, as with *--server*\n\n"
         "*VARVE\\_TOKEN*\n\tits token\n\n"
         "*VARVE\\_TOKEN\\_FILE*\n\ta file whose first line is its token\n\n"
         "*NO\\_COLOR*\n\tno colours, whatever standard output is\n\n";
}

bool asks_a_server(CLI::App& command) { return command.get_option_no_throw("--server") != nullptr; }

std::string page_of_verb(const Verb& verb) {
  DeclaredVerb declared(verb);
  CLI::App& command = declared.command();
  const std::string page = "varve-" + std::string(verb.name);
  const Footer footer = taken_apart(command.get_footer());
  std::string text = first_line(page, 1) + heading("NAME") +
                     fmt::format("{} - {}\n\n", page, escaped(verb.summary)) + heading("SYNOPSIS") +
                     synopsis(verb, command);
  const std::string description = operands(command) + paragraphs(footer.description);
  if (!description.empty()) text += heading("DESCRIPTION") + description;
  text += heading("OPTIONS") + options(command);
  if (!footer.exit_status.empty()) text += heading("EXIT STATUS") + footer.exit_status;
  if (asks_a_server(command)) text += environment();
  return text + see_also(page);
}

/// All verbs that begin with a word, on one page.
std::string page_of_family(const std::string& first) {
  const std::string page = "varve-" + first;
  std::string text = first_line(page, 1) + heading("NAME") +
                     fmt::format("{} - {}\n\n", page, escaped(family_summary(first)));
  std::string synopses, descriptions, shared;
  for (const Verb& verb : all_verbs()) {
    if (verb.first_word() != first) continue;
    DeclaredVerb declared(verb);
    CLI::App& command = declared.command();
    synopses += synopsis(verb, command);
    std::string title = "varve " + std::string(verb.name);
    std::transform(title.begin(), title.end(), title.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    descriptions += heading(title) + fmt::format("{}.\n\n", escaped(verb.summary)) +
                    operands(command) + paragraphs(taken_apart(command.get_footer()).description) +
                    options(command, Which::own);
    shared = options(command, Which::shared);
  }
  return text + heading("SYNOPSIS") + synopses + descriptions + heading("OPTIONS OF EACH") +
         shared + heading("EXIT STATUS") + exit_table(false) + environment() + see_also(page);
}

/// Every page of a command, in the order of the help.
std::vector<std::string> command_pages() {
  std::vector<std::string> words;
  for (const Verb& verb : all_verbs()) {
    const std::string word(verb.first_word());
    if (verb.is_shown() && (words.empty() || words.back() != word)) words.push_back(word);
  }
  return words;
}

std::string main_page() {
  std::string text =
      first_line("varve", 1) + heading("NAME") +
      "varve - an NBD server with a QCOW2 writer, for backups that are not lost\n\n" +
      heading("SYNOPSIS") + "*varve* _COMMAND_ [_OPTIONS_]\n\n" + heading("DESCRIPTION") +
      paragraphs(
          "varve serve runs the backup server, and needs no option. The other "
          "commands ask a running server, or work with images by themselves.") +
      heading("COMMANDS");
  for (const std::string& word : command_pages()) {
    const std::string_view family = family_summary(word);
    text += fmt::format("*varve-{}*(1)\n\t{}\n\n", word,
                        escaped(family.empty() ? find_verb(word)->summary : family));
  }
  return text + heading("EXIT STATUS") + exit_table(true) +
         paragraphs("varve check has codes of its own: see varve-check(1).") + environment() +
         heading("FILES") +
         "/etc/varve/varve.toml\n\tthe configuration of *varve serve*: *varve.toml*(5)\n\n" +
         see_also("varve");
}

std::string configuration_page() {
  std::string text =
      first_line("varve.toml", 5) + heading("NAME") +
      "varve.toml - configuration of *varve serve*\n\n" + heading("DESCRIPTION") +
      paragraphs(
          "/etc/varve/varve.toml, or what --config names, is a TOML file. Its settings are the "
          "options of varve serve, with _ for -; an option on the command line wins. What may be "
          "given several times is a list.") +
      "```\nrepository = \"/backup/repository\"\ncommit_interval = \"1s\"\n\n"
      "[secrets.vc1]\nusername = \"backup\"\npassword = \"...\"\n```\n\n" +
      paragraphs(
          "[secrets.NAME] holds user name and password of a vCenter, which varve vm add names with "
          "--secret.");
  std::string group;
  for (const Setting& setting : serve_settings()) {
    if (setting.group != group) {
      group = setting.group;
      std::string title = group;
      std::transform(title.begin(), title.end(), title.begin(),
                     [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      text += heading(title);
    }
    std::string name = setting.name;
    std::replace(name.begin(), name.end(), '-', '_');
    const std::string value = setting.is_flag ? "true|false" : setting.metavar;
    text += fmt::format("*{}* = _{}_\n\t{}\n\n", escaped(name), escaped(value),
                        escaped(on_one_line(setting.help)));
  }
  return text + heading("SEE ALSO") + "*varve*(1), *varve-serve*(1)\n";
}

}  // namespace

std::string manual_page(std::string_view name) {
  if (name == "varve") return main_page();
  if (name == "varve.toml") return configuration_page();
  constexpr std::string_view kPrefix = "varve-";
  if (name.starts_with(kPrefix)) {
    const std::string word(name.substr(kPrefix.size()));
    if (!family_summary(word).empty()) return page_of_family(word);
    const Verb* const verb = find_verb(word);
    if (verb != nullptr && verb->is_shown()) return page_of_verb(*verb);
  }
  throw UsageError(fmt::format("there is no page '{}'; there are\n{}", name, manual_page_names()));
}

std::string manual_page_names() {
  std::string names = "varve.1\n";
  for (const std::string& word : command_pages()) names += fmt::format("varve-{}.1\n", word);
  return names + "varve.toml.5\n";
}

}  // namespace app
