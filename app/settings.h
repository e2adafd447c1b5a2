// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "app/options.h"

namespace app {

inline constexpr const char* kDefaultConfigFile = "/etc/varve/varve.toml";
/// An origin: SettingValue.
inline constexpr const char* kCommandLine = "command line";

/// One setting of `varve serve`, the same on the command line (--commit-interval) and in the
/// configuration file (commit_interval), parsed in one place.
struct Setting {
  using Values = std::vector<std::string>;
  std::string name;     ///< option without dashes in front: "commit-interval"
  std::string metavar;  ///< the file may say N, SIZE and TIME as a number, BOOL as true or false
  std::string help;
  /// All values given; more than one only when `repeatable`. Throws UsageError.
  std::function<void(ServeOptions&, const Values&)> apply;
  bool repeatable = false;
  bool is_flag = false;
  /// What `options` have, as the file would say it; null where only what was said is known.
  std::function<Values(ServeOptions& options)> show{};
  std::string group{};      ///< heading in `varve serve --help`
  bool is_secret = false;   ///< never shown, and kept from others than the server as the next
  bool is_private = false;  ///< may hold a secret: a file that says it is refused where others may
                            ///< read it (read_config_file); `show` leaves the secret out
};

const std::vector<Setting>& serve_settings();

/// The configuration file's word for it: "commit_interval".
std::string word_of(const Setting& setting);
/// Whether the configuration file may say it without quotes.
bool takes_numbers(const Setting& setting);
bool takes_truth(const Setting& setting);

// What `varve serve` and `varve nbd` both understand.
inline constexpr const char* kTlsHelp =
    "off, on or require; default: on with credentials, else off,\n"
    "and require beyond loopback";
inline constexpr const char* kTlsCertificatesHelp =
    "directory of ca-cert.pem, server-cert.pem, server-key.pem\n"
    "and perhaps ca-crl.pem";
inline constexpr const char* kTlsPskHelp =
    "file of USER:HEXKEY lines, as psktool makes it, mode 0600";
inline constexpr const char* kTlsVerifyPeerHelp = "clients need a certificate of ca-cert.pem";
inline constexpr const char* kTlsAllowedNameHelp =
    "name that a client's certificate must have (DN, CN or DNS\n"
    "name, * is a wildcard); may be given several times";
inline constexpr const char* kAllowAddressHelp =
    "address range that NBD clients may come from (default all);\n"
    "may be given several times";

/// Throws UsageError.
io::Networks parse_networks(const std::vector<std::string>& ranges);

/// What a configuration file says: values by setting name, and the secrets it holds.
struct ConfigFile {
  std::map<std::string, SettingValue> values;
  std::map<std::string, engine::Credentials> secrets;
};

/// Reads a TOML file. Throws UsageError that names file, line and key; also for a file that holds
/// secrets and that others than its owner, root or varve's own user, and its group may read.
ConfigFile read_config_file(const std::string& path);

}  // namespace app
