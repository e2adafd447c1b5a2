// SPDX-License-Identifier: Apache-2.0
#include "app/reload.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "app/settings.h"
#include "io/log.h"

namespace app {
namespace {

constexpr const char* kSecrets = "secrets";

std::vector<std::string> values_of(const ServeOptions& options, const std::string& name) {
  const auto found = options.said.find(name);
  return found == options.said.end() ? std::vector<std::string>() : found->second.values;
}

bool same(const engine::Credentials& one, const engine::Credentials& other) {
  return one.username == other.username && one.password == other.password;
}

/// Names of settings that were said differently, or of which only one side says anything.
std::vector<std::string> changed_settings(const ServeOptions& before, const ServeOptions& after) {
  std::vector<std::string> changed;
  for (const Setting& setting : serve_settings()) {
    if (values_of(before, setting.name) != values_of(after, setting.name)) {
      changed.push_back(setting.name);
    }
  }
  // Its file may say another one.
  const bool is_told = std::ranges::find(changed, "api-token") != changed.end() ||
                       std::ranges::find(changed, "api-token-file") != changed.end();
  if (before.api_token != after.api_token && !is_told) changed.push_back("api-token-file");
  const auto& old_secrets = before.engine.named_secrets;
  const auto& new_secrets = after.engine.named_secrets;
  const bool are_same = std::ranges::equal(old_secrets, new_secrets, [](auto& one, auto& other) {
    return one.first == other.first && same(one.second, other.second);
  });
  if (!are_same) changed.push_back(kSecrets);
  return changed;
}

}  // namespace

Reloader::Reloader(ServeOptions options, std::vector<Reloadable> parts)
    : running_(std::move(options)), parts_(std::move(parts)) {}

void Reloader::reload() {
  io::log(io::LogLevel::info, "SIGHUP: the configuration is read again");
  try {
    const ServeOptions fresh = serve_options(running_.arguments);
    if (!running_.config_file.empty() && fresh.config_file.empty()) {
      throw UsageError(running_.config_file + " is gone");
    }
    follow(fresh);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "the configuration is not followed, nothing has changed: {}",
            failure.what());
  }
}

void Reloader::follow(const ServeOptions& fresh) {
  std::vector<std::function<void()>> changes;
  std::vector<std::string> followed, waiting;
  for (const Reloadable& part : parts_) {
    auto change = part.prepare(fresh);
    if (!change) continue;
    changes.push_back(std::move(*change));
    followed.insert(followed.end(), part.settings.begin(), part.settings.end());
  }
  for (const auto& change : changes) change();
  std::vector<std::string> in_force;
  for (const std::string& name : changed_settings(running_, fresh)) {
    const bool is_followed = std::ranges::find(followed, name) != followed.end();
    (is_followed ? in_force : waiting).push_back(name);
  }
  for (const std::string& name : in_force) {
    if (name == kSecrets) {
      running_.engine.named_secrets = fresh.engine.named_secrets;
    } else if (const auto said = fresh.said.find(name); said != fresh.said.end()) {
      running_.said[name] = said->second;
    } else {
      running_.said.erase(name);
    }
  }
  if (in_force.empty()) {
    io::log(io::LogLevel::info, "no setting has changed that takes effect while varve runs");
  } else {
    io::log(io::LogLevel::info, "changed and in force: {}", fmt::join(in_force, ", "));
  }
  if (!waiting.empty()) {
    io::log(io::LogLevel::warning, "changed, but in force only after a restart: {}",
            fmt::join(waiting, ", "));
  }
}

}  // namespace app
