// SPDX-License-Identifier: Apache-2.0
#include "app/verbs.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/config_options.h"
#include "app/declare.h"
#include "app/nbd_options.h"
#include "app/operate/verbs.h"
#include "app/pull/options.h"
#include "app/reference.h"
#include "app/restore/options.h"
#include "app/token_options.h"
#include "app/verify_options.h"

namespace app {
namespace {

constexpr std::string_view kServer = "Server", kBackups = "Backups", kPoints = "Restore points",
                           kImages = "Images and catalogue", kHelp = "Help", kHidden = "";

/// `finish` makes of what was typed what is carried out.
template <class Arguments, class Options>
Verb verb(std::string_view name, std::string_view group, std::string_view summary,
          void (*declare)(CLI::App&, Arguments&),
          Options (*finish)(std::type_identity_t<Arguments>), int (*run)(const Options&)) {
  return {name, group, summary, [=](CLI::App& command) -> FinishParse {
            const auto arguments = std::make_shared<Arguments>();
            declare(command, *arguments);
            return [arguments, finish, run] {
              const Options options = finish(std::move(*arguments));
              return Invocation{options, [options, run] { return run(options); }};
            };
          }};
}

Verb server(Verb verb) {
  verb.is_server = true;
  return verb;
}

template <class Options>
Options as_typed(Options options) {
  return options;
}

template <class Options>
Verb verb(std::string_view name, std::string_view group, std::string_view summary,
          void (*declare)(CLI::App&, Options&), int (*run)(const Options&)) {
  return verb<Options, Options>(name, group, summary, declare, as_typed<Options>, run);
}

/// Of a verb that asks a running server.
template <class Options>
Verb client_verb(std::string_view name, std::string_view group, std::string_view summary,
                 void (*declare)(CLI::App&, Options&), int (*run)(const Options&)) {
  return verb<Options, Options>(name, group, summary, declare, completed<Options>, run);
}

struct HelpArguments {
  std::vector<std::string> words;
};

void declare_help(CLI::App& command, HelpArguments& arguments) {
  command.add_option("COMMAND", arguments.words, "what to say more of: serve, or vm add");
}

PrintText help_of(HelpArguments arguments) { return {help_text(arguments.words)}; }

struct WordArgument {
  std::string word;
};

void declare_completion(CLI::App& command, WordArgument& arguments) {
  command.add_option("SHELL", arguments.word, "bash, zsh or fish")->required();
  command.footer(
      "For this shell only: eval \"$(varve completion bash)\". Packages install what it prints.");
}
PrintText completion_of(WordArgument arguments) { return {completion_script(arguments.word)}; }

void declare_man(CLI::App& command, WordArgument& arguments) {
  command.add_option("PAGE", arguments.word, "varve-serve, say; all names without it");
}
PrintText manual_of(WordArgument arguments) {
  return {arguments.word.empty() ? manual_page_names() : manual_page(arguments.word)};
}

struct VersionArguments {
  bool json = false;
};

void declare_version(CLI::App& command, VersionArguments& arguments) {
  command.add_flag("--json", arguments.json, "print one JSON object");
}
PrintText version_of(VersionArguments arguments) {
  return {arguments.json ? version_json() : version_text()};
}

int run_print(const PrintText& print) {
  std::fputs(print.text.c_str(), stdout);
  return 0;
}

/// After the name of an option its value and nothing else; after an operand nothing.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_positional() || option->get_items_expected_max() == 0) return "";
    return " " + option->get_type_name();
  }
  /// One empty line between groups, not two: the formatter ends all but the last with another.
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    const bool is_later = !is_positional && group != "Options";
    const std::string text = CLI::Formatter::make_group(group, is_positional, std::move(options));
    return is_later ? text.substr(1) : text;
  }
};

std::vector<Verb> make_verbs() {
  return {
      server(verb("serve", kServer, "run the backup server: HTTP API and NBD", declare_serve,
                  checked, run_serve)),
      client_verb("status", kServer, "show what runs, and the space of the repositories",
                  declare_status, run_status),
      client_verb("repo list", kServer, "list the repositories", declare_repo_list, run_repo_list),
      client_verb("repo show", kServer, "show a repository", declare_repo_show, run_repo_show),
      client_verb("repo add", kServer, "add a repository", declare_repo_add, run_repo_add),
      client_verb("repo test", kServer, "try a repository out", declare_repo_test, run_repo_test),
      client_verb("repo remove", kServer, "forget a repository; its files stay",
                  declare_repo_remove, run_repo_remove),
      verb("config check", kServer, "say whether the server could start with its configuration",
           declare_config_check, run_config),
      verb("config show", kServer, "print every setting, its value and where that comes from",
           declare_config_show, run_config),
      verb("config example", kServer, "print a configuration file with every default",
           declare_config_example, run_config),
      verb("catalogue backup", kServer,
           "copy the catalogue to a file, while the server runs or not", declare_catalogue_backup,
           run_catalogue_backup),
      verb("token add", kServer, "make a token of the HTTP API, and print it this once",
           declare_token_add, checked, run_token),
      verb("token list", kServer, "list the tokens: names, scopes and ages", declare_token_list,
           run_token),
      verb("token revoke", kServer, "make a token worthless", declare_token_revoke, run_token),

      client_verb("vm list", kBackups, "list the VMs", declare_vm_list, run_vm_list),
      client_verb("vm show", kBackups, "show a VM, its disks and last backups", declare_vm_show,
                  run_vm_show),
      client_verb("vm add", kBackups, "register a VM and its disks", declare_vm_add, run_vm_add),
      client_verb("vm set", kBackups, "say how often a backup of a VM is expected", declare_vm_set,
                  run_vm_set),
      client_verb("vm remove", kBackups, "forget a VM that has no backups", declare_vm_remove,
                  run_vm_remove),
      client_verb("backup", kBackups, "start a backup that the node writes", declare_backup,
                  run_backup),
      verb("pull", kBackups, "back up disks that are read from NBD exports, files or devices",
           declare_pull, checked, run_pull),
      verb("adopt", kBackups, "make points of QCOW2 images that others made", declare_adopt,
           checked, run_adopt),
      client_verb("watch", kBackups, "follow a backup, a verification or a copy until it has ended",
                  declare_watch, run_watch),
      client_verb("cancel", kBackups, "end a running backup and remove what it wrote",
                  declare_cancel, run_cancel),

      client_verb("list", kPoints, "list restore points: a VM's chains, or every VM's newest",
                  declare_list, run_list),
      client_verb("show", kPoints, "show a backup, its disks and where it is read", declare_show,
                  run_show),
      client_verb("delete", kPoints, "delete a backup and its files", declare_delete, run_delete),
      verb("restore", kPoints, "copy a restore point to a file, a device or an NBD server",
           declare_restore, checked, run_restore),
      verb("verify", kPoints, "prove that backups are what was sent", declare_verify, checked,
           run_verify),

      verb("create", kImages, "make an empty QCOW2 image", declare_create, checked, run_create),
      server(verb("nbd", kImages, "serve one QCOW2 image over NBD, as qemu-nbd does", declare_nbd,
                  checked, run_nbd)),
      verb("check", kImages, "check an image or a backup, and its parents", declare_check,
           run_check),
      verb("rebuild", kImages, "make a lost catalogue anew from a repository's files",
           declare_rebuild, run_rebuild),
      server(
          verb("read-image", kHidden, "of `varve serve` only", declare_read_image, run_read_image)),

      verb("help", kHelp, "say more of a command", declare_help, help_of, run_print),
      verb("version", kHelp, "print version, features and the io_uring tier", declare_version,
           version_of, run_print),
      verb("completion", kHelp, "print the completions of a shell", declare_completion,
           completion_of, run_print),
      verb("man", kHidden, "print the source of a manual page", declare_man, manual_of, run_print),
  };
}

}  // namespace

const std::vector<Verb>& all_verbs() {
  static const std::vector<Verb> all = make_verbs();
  return all;
}

const Verb* find_verb(std::string_view name) {
  const std::vector<Verb>& all = all_verbs();
  const auto found =
      std::find_if(all.begin(), all.end(), [name](const Verb& verb) { return verb.name == name; });
  return found == all.end() ? nullptr : &*found;
}

std::string_view family_summary(std::string_view first_word) {
  if (first_word == "vm") return "virtual machines: list, show, add, set, remove";
  if (first_word == "config") return "the server's configuration: check, show, example";
  if (first_word == "catalogue") return "the catalogue: backup";
  if (first_word == "token") return "tokens of the HTTP API: add, list, revoke";
  if (first_word == "repo") return "repositories: list, show, add, test, remove";
  return "";
}

DeclaredVerb::DeclaredVerb(const Verb& verb)
    : command_(std::string(verb.summary), "varve " + std::string(verb.name)) {
  const auto formatter = std::make_shared<HelpFormatter>();
  formatter->label("Positionals", "Operands");
  command_.formatter(formatter);
  command_.set_help_flag("-h,--help", "print this text");
  finish_ = verb.declare(command_);
}

}  // namespace app
