// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/daemon.h"
#include "app/service_status.h"
#include "app/settings.h"

namespace app {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// A setting as it is in force.
struct Effective {
  const Setting& setting;
  std::optional<Setting::Values> values;  ///< none: the default, which only the help text says
  std::string origin;
};

std::vector<Effective> effective_settings(ServeOptions& options) {
  std::vector<Effective> all;
  for (const Setting& setting : serve_settings()) {
    Effective one{setting, {}, "default"};
    if (setting.show) one.values = setting.show(options);
    if (const auto said = options.said.find(setting.name); said != options.said.end()) {
      one.origin = said->second.origin;
      if (!one.values) one.values = said->second.values;
    }
    all.push_back(std::move(one));
  }
  return all;
}

bool is_hidden(const Effective& one) {
  return one.setting.is_secret && one.values && *one.values != Setting::Values{""};
}

/// TOML's strings have JSON's escapes.
std::string quoted(const std::string& text) { return OrderedJson(text).dump(); }

std::string toml_value(const Setting& setting, const Setting::Values& values) {
  if (!setting.repeatable && values.size() == 1) {
    return takes_truth(setting) ? values.front() : quoted(values.front());
  }
  std::string list;
  for (const std::string& value : values) list += (list.empty() ? "" : ", ") + quoted(value);
  return "[" + list + "]";
}

std::string toml_line(const Effective& one) {
  const std::string word = word_of(one.setting);
  if (is_hidden(one)) return fmt::format("# {} is set and not shown", word);
  if (!one.values) return fmt::format("# {} is as `varve serve --help` says", word);
  return fmt::format("{} = {}", word, toml_value(one.setting, *one.values));
}

void print_toml(ServeOptions& options) {
  fmt::print("# Configuration file: {}\n",
             options.config_file.empty() ? "none" : options.config_file);
  for (const Effective& one : effective_settings(options)) {
    fmt::print("{:<48} # {}\n", toml_line(one), one.origin);
  }
  for (const auto& [name, secret] : options.engine.named_secrets) {
    fmt::print("\n[secrets.{}]\nusername = {}\n# password is set and not shown\n", quoted(name),
               quoted(secret.username));
  }
}

void print_json(ServeOptions& options) {
  OrderedJson all = OrderedJson::array();
  for (const Effective& one : effective_settings(options)) {
    OrderedJson entry = {
        {"setting", word_of(one.setting)}, {"value", nullptr}, {"from", one.origin}};
    if (is_hidden(one)) {
      entry["hidden"] = true;
    } else if (one.values && one.setting.repeatable) {
      entry["value"] = *one.values;
    } else if (one.values && !one.values->empty()) {
      entry["value"] = one.values->front();
    }
    all.push_back(std::move(entry));
  }
  fmt::print("{}\n", all.dump(1));
}

/// Values to show for settings without a default value, such as one thread for each core.
const std::map<std::string_view, std::string_view> kExamples = {
    {"space-reserve", "1G"}, {"api-token-file", "/etc/varve/api-token"},
    {"http-tls", "off"},     {"tls", "off"},
    {"ports-tls", "off"},    {"allow-address", "192.0.2.0/24"},
    {"threads", "2"}};

/// What a service has; whoever prints it may be somebody else.
void print_example() {
  ServeOptions options;
  options.engine.repository_path = "/var/lib/varve/repository";
  options.engine.catalogue_path = "/var/lib/varve/catalogue.db";
  options.tokens = "/var/lib/varve/tokens";
  options.audit_log = "/var/lib/varve/audit.jsonl";
  options.nbd = {{{"127.0.0.1", 10809}}, {{"::1", 10809}}};
  fmt::print(
      "# {}: the settings of `varve serve`, each with its default, or with an example where it\n"
      "# has no default value.\n"
      "# The command line takes the same words with - for _, and wins. `varve config check` says\n"
      "# whether the file can be followed; `systemctl reload varve` follows what can change while\n"
      "# varve runs, and logs what waits for a restart. docs: install.md, operate.md\n",
      kDefaultConfigFile);
  for (const Effective& one : effective_settings(options)) {
    std::string help = one.setting.help;
    for (size_t at = 0; (at = help.find('\n', at)) != std::string::npos; at += 3) {
      help.replace(at, 1, "\n# ");
    }
    const std::string value = toml_value(
        one.setting,
        one.values ? *one.values : Setting::Values{std::string(kExamples.at(one.setting.name))});
    fmt::print("\n# {}\n#{} = {}\n", help, word_of(one.setting), value);
  }
  fmt::print(
      "\n# Credentials of a vCenter, which a VM names as {{\"ref\": \"vc1\"}}; the file must then "
      "have\n"
      "# mode 0640 at most.\n#[secrets.vc1]\n#username = \"backup\"\n#password = \"…\"\n");
}

}  // namespace

int run_config(const ConfigOptions& options) {
  if (options.verb == ConfigOptions::Verb::example) {
    print_example();
    return 0;
  }
  ServeOptions serve = configured(options.config);
  if (options.verb == ConfigOptions::Verb::show) {
    options.json ? print_json(serve) : print_toml(serve);
    return 0;
  }
  // Made and not started: it has read credentials and compared addresses by then.
  ServiceStatus nobody{io::Notifier()};
  const Daemon daemon(serve, {}, nobody);
  if (options.json) {
    fmt::print("{}\n", OrderedJson{{"config_file", serve.config_file}, {"in_order", true}}.dump());
    return 0;
  }
  fmt::print("{}: in order\n", serve.config_file.empty()
                                   ? fmt::format("no {}: defaults", kDefaultConfigFile)
                                   : serve.config_file);
  return 0;
}

}  // namespace app
