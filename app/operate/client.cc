// SPDX-License-Identifier: Apache-2.0
#include "app/operate/client.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "app/exit_status.h"
#include "app/options.h"
#include "engine/values/names.h"
#include "engine/values/point_name.h"
#include "io/percent_encoding.h"

namespace app {
namespace {

/// Some answers come from storage that is slow.
constexpr std::chrono::seconds kPatience(60);

bool is_not_found(const ServerRefused& refused) { return refused.status() == 404; }

}  // namespace

void declare_client(CLI::App& command, ClientOptions& options) {
  command.add_flag("--json", options.json, "print JSON: the API's own document, errors too")
      ->group("Output");
  command.add_flag("--bytes", options.bytes, "print sizes as exact bytes")->group("Output");
  command.add_flag("--utc", options.utc, "print times in UTC, as RFC 3339")->group("Output");
  declare_server(command, options.server, options.token);
  declare_server_certificates(command, options.certificates);
  explain_exit(command);
}

void declare_repository(CLI::App& command, std::string& repository_id, const std::string& usual) {
  command.add_option("--repository", repository_id, fmt::format("its id (default {})", usual))
      ->type_name("ID");
}

void declare_yes(CLI::App& command, bool& yes) { command.add_flag("-y,--yes", yes, "do not ask"); }

void explain_exit(CLI::App& command, const std::string& text) {
  std::string footer = text.empty() ? "" : text + "\n\n";
  footer += "Exit status:";
  for (const ExitMeaning& meaning : kExitMeanings) {
    const bool other = meaning.status == kIncomplete || meaning.status == kDamaged;
    if (!other)
      footer += fmt::format("\n  {:<4} {}", static_cast<int>(meaning.status), meaning.meaning);
  }
  command.footer(footer);
}

nlohmann::json Client::call(const std::string& method, const std::string& target,
                            const std::string& body) const {
  return api_call(server_,
                  {.method = method, .target = target, .body = body, .patience = kPatience});
}

nlohmann::json Client::get_root(const std::string& target) const {
  const HttpAnswer answer = http_call(server_, {.target = target});
  return nlohmann::json::parse(answer.body, nullptr, false);
}

bool Client::is_there(const std::string& target) const {
  try {
    get(target);
    return true;
  } catch (const ServerRefused& refused) {
    if (!is_not_found(refused)) throw;
    return false;
  }
}

bool Client::is_backup(const std::string& id) const {
  return id.starts_with(engine::kJobPrefix) && is_there("/backups/" + io::percent_encoded(id));
}

std::string Client::backup_id_of(const std::string& point) const {
  const auto newest_of = [this](const std::string& vm_name, const std::string& which) {
    const nlohmann::json found = get(fmt::format(
        "/points?vm_name={}&point={}", io::percent_encoded(vm_name), io::percent_encoded(which)));
    return found.at("points").at(0).at("backup_id").get<std::string>();
  };
  const auto [vm_name, which] = engine::split_point(point);
  if (!which.empty()) return newest_of(vm_name, which);
  if (is_backup(point)) return point;
  try {
    return newest_of(point, std::string(engine::kLatestPoint));
  } catch (const ServerRefused& refused) {
    if (!is_not_found(refused) || refused.code() != "vm_not_found") throw;
  }
  refuse_unknown_point(server_, point);
  throw CommandFailed(kNotFound,
                      fmt::format("{}: neither a VM nor a backup is called '{}'", url(), point));
}

void print(const Client& client, const nlohmann::json& document, const std::string& text) {
  const std::string shown =
      client.json() ? document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"
                    : text;
  std::fputs(shown.c_str(), stdout);
}

void require_yes(bool yes, const std::string& question) {
  if (yes) return;
  if (::isatty(STDIN_FILENO) != 1) {
    throw UsageError(fmt::format("{} Give --yes: there is no terminal to ask at", question));
  }
  fmt::print(stderr, "{} [y/N] ", question);
  std::string answer;
  std::getline(std::cin, answer);
  if (answer != "y" && answer != "yes") throw CommandFailed(kFailed, "nothing was done");
}

}  // namespace app
