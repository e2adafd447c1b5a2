// SPDX-License-Identifier: Apache-2.0
#include "app/token_options.h"

#include <fmt/format.h>

#include "app/operate/client.h"

namespace app {
namespace {

void declare_place(CLI::App& command, TokenOptions& options) {
  command
      .add_option("--file", options.file, "the file of tokens (default: --tokens of `varve serve`)")
      ->type_name("FILE");
  command.add_option("--config", options.config, "the TOML file that says so")->type_name("FILE");
  command.add_flag("--json", options.json, "print one JSON object, errors too");
}

}  // namespace

void declare_token_add(CLI::App& command, TokenAddArguments& arguments) {
  arguments.options.verb = TokenOptions::Verb::add;
  command.add_option("NAME", arguments.options.name, "what it is called in the audit log")
      ->required();
  command
      .add_option("--scope", arguments.scopes,
                  "read, backup, restore or admin; may be given several times. backup and\n"
                  "restore include read, admin includes all")
      ->type_name("SCOPE")
      ->required();
  declare_place(command, arguments.options);
  explain_exit(
      command,
      "The token is printed this once: it is kept as SHA-256 only, and one that is lost is\n"
      "revoked and made anew. A running `varve serve` follows at once. The first token\n"
      "makes all requests need one, of loopback too.");
}

void declare_token_list(CLI::App& command, TokenOptions& options) {
  command.add_flag("--utc", options.utc, "print times in UTC, as RFC 3339");
  declare_place(command, options);
}

void declare_token_revoke(CLI::App& command, TokenOptions& options) {
  options.verb = TokenOptions::Verb::revoke;
  command.add_option("NAME", options.name, "as it was added")->required();
  declare_place(command, options);
  explain_exit(command, "A running `varve serve` follows at once.");
}

TokenOptions checked(TokenAddArguments arguments) {
  TokenOptions options = std::move(arguments.options);
  for (const std::string& word : arguments.scopes) {
    const auto scope = api::scope_of(word);
    if (!scope) {
      throw UsageError(
          fmt::format("--scope: \"{}\" is not one of read, backup, restore, admin", word));
    }
    options.scopes.push_back(*scope);
  }
  return options;
}

}  // namespace app
