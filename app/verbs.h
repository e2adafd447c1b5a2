// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <any>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

/// The table of verbs: what `varve` can be told. Command line, help, completions and man pages are
/// all made of it.
namespace app {

/// A command line that was understood.
struct Invocation {
  std::any options;          ///< the verb's own, ServeOptions say
  std::function<int()> run;  ///< carries it out, and returns the exit status
  bool is_server = false;    ///< waits for signals itself, and ends well by one
};

/// What is to be done once the words of a verb are parsed. Throws UsageError for values that do not
/// go together.
using FinishParse = std::function<Invocation()>;

struct Verb {
  std::string_view name;   ///< as it is typed: "serve", "vm list"
  std::string_view group;  ///< heading in `varve --help`; "": not shown
  std::string_view summary;
  /// Puts the options on the command. They live as long as what is returned.
  std::function<FinishParse(CLI::App&)> declare;
  bool is_server = false;  ///< as of its Invocation

  /// "vm" of "vm list", "serve" of "serve".
  std::string_view first_word() const { return name.substr(0, name.find(' ')); }
  bool is_shown() const { return !group.empty(); }
};

/// In the order of the help, a group's verbs side by side. Static data.
const std::vector<Verb>& all_verbs();
/// Nothing when there is none of that name.
const Verb* find_verb(std::string_view name);

/// The summary of verbs with the same first word: "virtual machines" for "vm"; "" for a verb of one
/// word.
std::string_view family_summary(std::string_view first_word);

/// A verb with its options on it, as the parser, completions and man pages use it.
class DeclaredVerb {
 public:
  explicit DeclaredVerb(const Verb& verb);
  CLI::App& command() { return command_; }
  Invocation finish() const { return finish_(); }

 private:
  CLI::App command_;
  FinishParse finish_;
};

}  // namespace app
