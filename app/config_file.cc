#include <fmt/format.h>

#include <toml++/toml.h>
#include <algorithm>
#include <sstream>

#include "app/settings.h"

namespace app {
namespace {

std::string place(const std::string& path, const toml::node& node) {
  return fmt::format("{}:{}", path, node.source().begin.line);
}

/// A number, text or truth value as the command line would write it.
std::string scalar_text(const std::string& path, const std::string& key, const toml::node& node) {
  if (const auto text = node.value<std::string>()) return *text;
  if (node.is_boolean()) return *node.value<bool>() ? "true" : "false";
  if (node.is_integer()) return std::to_string(*node.value<int64_t>());
  throw UsageError(fmt::format("{}: \"{}\" must be a text, a whole number or true/false",
                               place(path, node), key));
}

std::vector<std::string> values_of(const std::string& path, const std::string& key,
                                   const toml::node& node, bool repeatable) {
  const toml::array* const list = node.as_array();
  if (list == nullptr) return {scalar_text(path, key, node)};
  if (!repeatable) {
    throw UsageError(fmt::format("{}: \"{}\" takes one value", place(path, node), key));
  }
  std::vector<std::string> values;
  for (const toml::node& element : *list) values.push_back(scalar_text(path, key, element));
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

}  // namespace

ConfigFile read_config_file(const std::string& path) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    throw UsageError(
        fmt::format("{}:{}: {}", path, error.source().begin.line, error.description()));
  }
  ConfigFile config;
  for (const auto& [key, node] : table) {
    std::string name(key.str());
    if (name == "secrets") {
      config.secrets = secrets_of(path, node);
      continue;
    }
    std::replace(name.begin(), name.end(), '_', '-');
    const auto& settings = serve_settings();
    const auto known = std::find_if(settings.begin(), settings.end(),
                                    [&](const Setting& setting) { return setting.name == name; });
    if (known == settings.end()) {
      throw UsageError(fmt::format("{}: unknown setting \"{}\"", place(path, node), key.str()));
    }
    config.values[name] = values_of(path, name, node, known->repeatable);
  }
  return config;
}

}  // namespace app
