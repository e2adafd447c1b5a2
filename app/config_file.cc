// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <toml++/toml.h>
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "app/settings.h"

namespace app {
namespace {

std::string place(const std::string& path, const toml::node& node) {
  return fmt::format("{}:{}", path, node.source().begin.line);
}

/// A number, text or truth value as the command line would write it. A number where a path is meant
/// would make a directory of that name.
std::string scalar_text(const std::string& path, const Setting& setting, const toml::node& node) {
  if (const auto text = node.value<std::string>(); text && node.is_string()) return *text;
  if (node.is_boolean() && takes_truth(setting)) return *node.value<bool>() ? "true" : "false";
  if (node.is_integer() && takes_numbers(setting)) return std::to_string(*node.value<int64_t>());
  const std::string_view wanted = takes_truth(setting)     ? "true or false"
                                  : takes_numbers(setting) ? "a whole number, or a text in quotes"
                                                           : "a text in quotes";
  throw UsageError(
      fmt::format("{}: \"{}\" must be {}", place(path, node), word_of(setting), wanted));
}

std::vector<std::string> values_of(const std::string& path, const Setting& setting,
                                   const toml::node& node) {
  const toml::array* const list = node.as_array();
  if (list == nullptr) return {scalar_text(path, setting, node)};
  if (!setting.repeatable) {
    throw UsageError(
        fmt::format("{}: \"{}\" takes one value", place(path, node), word_of(setting)));
  }
  std::vector<std::string> values;
  for (const toml::node& element : *list) values.push_back(scalar_text(path, setting, element));
  return values;
}

/// [secrets.NAME] username = "…", password = "…"
std::map<std::string, engine::Credentials> secrets_of(const std::string& path,
                                                      const toml::node& node) {
  const toml::table* const table = node.as_table();
  if (table == nullptr) throw UsageError(fmt::format("{}: [secrets] is not a table", path));
  std::map<std::string, engine::Credentials> secrets;
  for (const auto& [name, entry] : *table) {
    const toml::table* const secret = entry.as_table();
    const auto member = [&](const char* key) {
      return secret != nullptr ? (*secret)[key].value<std::string>() : std::nullopt;
    };
    const auto username = member("username");
    const auto password = member("password");
    if (!username || !password) {
      throw UsageError(fmt::format("{}: secret \"{}\" needs username and password",
                                   place(path, entry), name.str()));
    }
    secrets[std::string(name.str())] = {*username, *password};
  }
  return secrets;
}

/// Whoever may read secrets may use them. The group may: a service's own, beside root as the owner.
void check_secrecy(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return;  // it was just read
  constexpr unsigned kMode = 0640;
  if ((status.st_mode & 0777 & ~kMode) != 0) {
    throw UsageError(fmt::format(
        "{} holds secrets and may be read or changed by others than its owner and group (mode "
        "{:04o}); chmod {:04o} it",
        path, status.st_mode & 07777, kMode));
  }
  if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
    throw UsageError(
        fmt::format("{} holds secrets and belongs to another user (uid {}); chown it to root", path,
                    status.st_uid));
  }
}

}  // namespace

ConfigFile read_config_file(const std::string& path) {
  if (::access(path.c_str(), R_OK) != 0) {
    throw UsageError(fmt::format("read {}: {}", path, std::strerror(errno)));
  }
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    throw UsageError(
        fmt::format("{}:{}: {}", path, error.source().begin.line, error.description()));
  }
  ConfigFile config;
  for (const auto& [key, node] : table) {
    if (key.str() == "secrets") {
      check_secrecy(path);
      config.secrets = secrets_of(path, node);
      continue;
    }
    std::string name(key.str());
    std::replace(name.begin(), name.end(), '_', '-');
    const auto& settings = serve_settings();
    const auto known = std::find_if(settings.begin(), settings.end(),
                                    [&](const Setting& setting) { return setting.name == name; });
    if (known == settings.end()) {
      throw UsageError(fmt::format("{}: unknown setting \"{}\"", place(path, node), key.str()));
    }
    if (known->is_secret || known->is_private) check_secrecy(path);
    config.values[name] = {values_of(path, *known, node), place(path, node)};
  }
  return config;
}

}  // namespace app
