// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "app/settings.h"

namespace app {
namespace {

/// Where the service manager puts credentials (LoadCredential= of a unit); "": nowhere.
std::string credentials_directory() {
  const char* const directory = std::getenv("CREDENTIALS_DIRECTORY");
  return directory != nullptr && *directory == '/' ? directory : "";
}

/// Throws UsageError when that cannot be told: defaults in the place of a file that is there would
/// leave a server open.
bool exists(const std::string& path) {
  if (::access(path.c_str(), F_OK) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw UsageError(fmt::format("read {}: {}", path, std::strerror(errno)));
}

std::string without_closing_newlines(std::string text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  return text;
}

/// Credentials with varve's own names need no setting.
std::map<std::string, SettingValue> from_credentials() {
  std::map<std::string, SettingValue> said;
  const std::string directory = credentials_directory();
  if (directory.empty()) return said;
  const auto say = [&](const char* setting, std::string value, const std::string& credential) {
    said[setting] = {{std::move(value)}, "credential " + credential};
  };
  const auto path = [&](const char* name) { return directory + "/" + name; };
  if (exists(path("varve.api-token"))) {
    std::string token =
        without_closing_newlines(read_private_file(path("varve.api-token"), nullptr));
    if (token.empty()) throw UsageError("credential varve.api-token is empty");
    say("api-token", std::move(token), "varve.api-token");
  }
  if (exists(path("varve.tls-psk"))) say("tls-psk", path("varve.tls-psk"), "varve.tls-psk");
  if (exists(path("server-cert.pem"))) say("tls-certificates", directory, "server-cert.pem");
  return said;
}

/// "$CREDENTIALS_DIRECTORY/NAME" is the path of a credential; nothing else is expanded.
std::string expanded(const std::string& value) {
  constexpr std::string_view kVariable = "$CREDENTIALS_DIRECTORY";
  if (!value.starts_with(kVariable)) return value;
  const std::string directory = credentials_directory();
  if (directory.empty()) {
    throw UsageError(fmt::format(
        "{}: CREDENTIALS_DIRECTORY is not set; systemd sets it for a unit with LoadCredential=",
        value));
  }
  return directory + value.substr(kVariable.size());
}

void apply(ServeOptions& options) {
  for (const Setting& setting : serve_settings()) {
    const auto found = options.said.find(setting.name);
    if (found == options.said.end()) continue;
    SettingValue& said = found->second;
    try {
      for (std::string& value : said.values) value = expanded(value);
      setting.apply(options, said.values);
    } catch (const UsageError& error) {
      const std::string source =
          said.origin == kCommandLine ? "--" : fmt::format("{}: ", said.origin);
      throw UsageError(fmt::format("{}{}: {}", source, setting.name, error.what()));
    }
  }
}

void complete(ServeOptions& options) {
  engine::EngineOptions& engine = options.engine;
  if (engine.repository_path.empty()) {
    engine.repository_path = default_state_directory() + "/repository";
  }
  if (engine.catalogue_path.empty()) {
    engine.catalogue_path = default_state_directory() + "/catalogue.db";
  }
  engine.repository_path = absolute_path(engine.repository_path);
  engine.catalogue_path = absolute_path(engine.catalogue_path);
  const std::string state = engine.catalogue_path.substr(0, engine.catalogue_path.rfind('/'));
  if (options.tokens.value_or("").empty()) options.tokens = state + "/tokens";
  options.tokens = absolute_path(*options.tokens);
  options.audit_log = options.audit_log.value_or(state + "/audit.jsonl");
  if (!options.audit_log->empty()) options.audit_log = absolute_path(*options.audit_log);
  if (options.nbd.empty()) options.nbd = {{{"127.0.0.1", 10809}}, {{"::1", 10809}}};
}

}  // namespace

ServeOptions serve_options(const ServeArguments& arguments) {
  ServeOptions options;
  options.arguments = arguments;
  options.said = from_credentials();
  options.config_file = arguments.config_file;
  if (options.config_file.empty() && exists(kDefaultConfigFile)) {
    options.config_file = kDefaultConfigFile;
  }
  if (!options.config_file.empty()) {
    ConfigFile file = read_config_file(options.config_file);
    for (auto& [name, value] : file.values) options.said[name] = std::move(value);
    options.engine.named_secrets = std::move(file.secrets);
  }
  for (const auto& [name, values] : arguments.values) {
    options.said[name] = {values, kCommandLine};
  }
  apply(options);
  complete(options);
  return options;
}

ServeOptions configured(const std::string& config_file) { return serve_options({config_file, {}}); }

}  // namespace app
