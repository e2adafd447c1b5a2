// SPDX-License-Identifier: Apache-2.0
#include "app/config_options.h"

#include <fmt/format.h>

#include "app/operate/client.h"
#include "app/settings.h"

namespace app {
namespace {

std::string config_help() {
  return fmt::format("TOML file (default {} if it exists)", kDefaultConfigFile);
}

}  // namespace

void declare_config_check(CLI::App& command, ConfigOptions& options) {
  options.verb = ConfigOptions::Verb::check;
  auto* const file = command.add_option("FILE", options.config, config_help());
  command.add_option("--config", options.config, "the same, as other commands name it")
      ->type_name("FILE")
      ->excludes(file);
  command.add_flag("--json", options.json, "print one JSON object, errors too");
  command.footer(
      "Reads the file, and the certificates, keys and tokens that it names; nothing is changed.\n"
      "Exit status: 0 in order, 2 not, with file, line and cause.");
}

void declare_config_show(CLI::App& command, ConfigOptions& options) {
  options.verb = ConfigOptions::Verb::show;
  command.add_option("--config", options.config, config_help())->type_name("FILE");
  command.add_flag("--json", options.json, "print one JSON array");
  command.footer("Secrets are not printed, only where they come from.");
}

void declare_config_example(CLI::App& command, ConfigOptions& options) {
  options.verb = ConfigOptions::Verb::example;
  command.footer(
      "Every setting with its default, each a comment: `varve serve` needs none of them.");
}

void declare_catalogue_backup(CLI::App& command, CatalogueBackupOptions& options) {
  command.add_option("FILE", options.target, "the copy; it appears when it is whole")->required();
  command.add_flag("--force", options.force, "replace a file of that name");
  command
      .add_option("--catalogue", options.catalogue,
                  "the catalogue (default: that of `varve serve`)")
      ->type_name("FILE");
  command.add_option("--config", options.config, config_help())->type_name("FILE");
  command.add_flag("--json", options.json, "print one JSON object, errors too");
  command.add_flag("--bytes", options.bytes, "print sizes as exact bytes");
  explain_exit(command,
               "The copy is the catalogue at one moment, checked, with mode 0600. Passwords of\n"
               "vCenters are not in it: they lie in CATALOGUE.secrets.");
}

}  // namespace app
