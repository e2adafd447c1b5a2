// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "engine/values/types.h"
#include "io/runtime.h"
#include "io/sync.h"

/// The vCenter credentials: those that the configuration names, and those that were given with a
/// VM. The latter lie beside the catalogue, in a file that only its owner may read.
///
/// Invariant: a password leaves this class through find() only; no text thrown here contains one.
/// Belongs to the control thread.
namespace engine {

class Secrets {
 public:
  /// Reads the file at `path`; it need not exist. Removes half-written ones beside it.
  static io::Task<Secrets> open(io::Runtime runtime, std::string path,
                                std::map<std::string, Credentials> named);

  /// Those that the configuration names now.
  void rename(std::map<std::string, Credentials> named) { named_ = std::move(named); }

  /// Nothing when the reference cannot be resolved, or there is none.
  std::optional<Credentials> find(const Vm& vm) const;

  /// Whether the VM refers to a secret that the configuration does not name.
  bool is_missing(const Vm& vm) const {
    return vm.credentials.kind == CredentialsRef::Kind::reference &&
           !named_.contains(vm.credentials.ref);
  }

  /// Durable when it returns.
  io::Task<void> store(std::string context_id, Credentials credentials);
  io::Task<void> remove(std::string context_id);

 private:
  Secrets(io::Runtime runtime, std::string path, std::map<std::string, Credentials> named)
      : runtime_(runtime),
        path_(std::move(path)),
        named_(std::move(named)),
        writing_(std::make_unique<io::Mutex>(runtime.executor)) {}
  /// Writers take turns; each writes all that is known when its turn comes.
  io::Task<void> write();

  io::Runtime runtime_;
  std::string path_;
  std::map<std::string, Credentials> named_;
  std::map<std::string, Credentials> by_context_;
  std::unique_ptr<io::Mutex> writing_;
};

}  // namespace engine
