// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/api_call.h"
#include "app/commands.h"
#include "app/exit_status.h"
#include "app/operate/table.h"
#include "app/token_file.h"
#include "engine/values/time_text.h"

namespace app {
namespace {

std::string file_of(const TokenOptions& options) {
  return options.file.empty() ? *configured(options.config).tokens : absolute_path(options.file);
}

int add(const TokenOptions& options, const std::string& file) {
  const auto now = engine::to_seconds(std::chrono::system_clock::now());
  const auto token = add_token(file, options.name, options.scopes, now);
  if (!token) {
    throw CommandFailed(
        kBusy, fmt::format("{} has a token \"{}\" already; revoke it first, or take another name",
                           file, options.name));
  }
  if (options.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"name", options.name}, {"token", *token}}.dump());
  } else {
    fmt::print("{}\n", *token);
  }
  return kOk;
}

int revoke(const TokenOptions& options, const std::string& file) {
  if (!revoke_token(file, options.name)) {
    throw CommandFailed(kNotFound,
                        fmt::format("{} has no token \"{}\"; `varve token list` names those it has",
                                    file, options.name));
  }
  if (options.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"name", options.name}, {"revoked", true}}.dump());
  }
  return kOk;
}

nlohmann::ordered_json json_of(const StoredToken& token) {
  nlohmann::ordered_json scopes = nlohmann::ordered_json::array();
  for (const api::Scope scope : token.scopes) scopes.push_back(api::to_text(scope));
  return {{"name", token.name},
          {"scopes", std::move(scopes)},
          {"created_at", engine::to_rfc3339(token.created_at)}};
}

int list(const TokenOptions& options, const std::string& file) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::array();
  for (const StoredToken& token : read_tokens(file)) tokens.push_back(json_of(token));
  if (options.json) {
    fmt::print("{}\n", nlohmann::ordered_json{{"tokens", tokens}}.dump());
    return 0;
  }
  if (tokens.empty()) {
    fmt::print("no tokens in {}\n", file);
    return 0;
  }
  const Style style = style_here(false, options.utc);
  std::fputs(table_of(kTokens, tokens, style).text().c_str(), stdout);
  return 0;
}

}  // namespace

int run_token(const TokenOptions& options) {
  const std::string file = file_of(options);
  switch (options.verb) {
    case TokenOptions::Verb::add:
      return add(options, file);
    case TokenOptions::Verb::revoke:
      return revoke(options, file);
    case TokenOptions::Verb::list:
      break;
  }
  return list(options, file);
}

}  // namespace app
