#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "app/options.h"

namespace app {

/// One setting of `varve serve`, the same on the command line (--commit-interval) and in the
/// configuration file (commit_interval), parsed in one place.
struct Setting {
  std::string name;  ///< option without dashes in front: "commit-interval"
  std::string metavar;
  std::string help;
  /// All values given; more than one only when `repeatable`. Throws UsageError.
  std::function<void(ServeOptions&, const std::vector<std::string>&)> apply;
  bool repeatable = false;
  bool is_flag = false;
};

const std::vector<Setting>& serve_settings();

/// What a configuration file says: values by setting name, and the secrets it holds.
struct ConfigFile {
  std::map<std::string, std::vector<std::string>> values;
  std::map<std::string, engine::Credentials> secrets;
};

/// Reads a TOML file. Throws UsageError that names file, line and key.
ConfigFile read_config_file(const std::string& path);

}  // namespace app
