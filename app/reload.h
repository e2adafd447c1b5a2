// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/options.h"

namespace app {

/// What can change while `varve serve` runs: a part of it, and the settings that it reads.
struct Reloadable {
  /// Makes what it takes to follow the options, and changes nothing yet: throws UsageError when
  /// they cannot be followed. What it returns does the change and does not fail; nothing, when
  /// these options cannot be followed before the next start.
  using Prepare = std::function<std::optional<std::function<void()>>(const ServeOptions& options)>;

  std::vector<std::string> settings;  ///< names; "secrets" for the named secrets
  Prepare prepare;
};

/// SIGHUP: the configuration is read again, and followed as a whole or not at all. The main
/// thread's.
class Reloader {
 public:
  /// `options` are those that the server was started with.
  Reloader(ServeOptions options, std::vector<Reloadable> parts);

  /// Reads, prepares every part (a file that a setting names may have changed too) and changes all.
  /// Logs which settings take effect, and which have changed and wait for the next start; a
  /// configuration that cannot be followed is logged as an error and changes nothing.
  void reload();

 private:
  void follow(const ServeOptions& fresh);

  ServeOptions running_;  // as far as settings that were said go: what is in force
  std::vector<Reloadable> parts_;
};

}  // namespace app
