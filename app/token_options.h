// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/options.h"

namespace app {

/// `varve token add` as it is typed.
struct TokenAddArguments {
  TokenOptions options;
  std::vector<std::string> scopes;
};

void declare_token_add(CLI::App& command, TokenAddArguments& arguments);
void declare_token_list(CLI::App& command, TokenOptions& options);
void declare_token_revoke(CLI::App& command, TokenOptions& options);

/// Throws UsageError.
TokenOptions checked(TokenAddArguments arguments);

}  // namespace app
