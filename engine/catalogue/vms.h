// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/requests.h"
#include "engine/values/types.h"
#include "engine/values/views.h"

namespace engine {

/// The registered VMs and their disks.
///
/// Invariant: a disk index is assigned once per (VM, VMware key) and never reused, so that
/// "disk-<index>" in a repository always means the same disk; a disk that is missing in a later
/// registration is kept and marked removed. On the catalogue's thread.
class VmCatalogue {
 public:
  explicit VmCatalogue(Db& db) : db_(db) {}

  /// Throws what put() would refuse and changes nothing: refusals vm_context_invalid,
  /// vm_of_other_vcenter, vm_backup_running. Credentials are written between the two calls.
  void check(const PutVmContext& request);
  /// Creates or replaces. True when created.
  bool put(const PutVmContext& request, Time now);

  /// By registered name.
  std::optional<Vm> find(std::string_view vm_name);
  std::optional<Vm> find_context(std::string_view context_id);
  /// By registered name.
  std::vector<Vm> list();
  /// The same as an overview shows them, at a cost that does not grow with the number of points.
  std::vector<ListedVm> listed();
  /// The same, with names, registration, expected interval and last good and verified points only.
  std::vector<Vm> list_ages();

  /// The VM that a request means: the registered name, else the inventory name if exactly one VM
  /// has it. Throws vm_not_found, vm_ambiguous.
  Vm resolve(std::string_view vm_name);
  /// Every VM that the existing client may mean by this name: registered and inventory names alike.
  std::vector<Vm> named(std::string_view vm_name);
  /// The same by inventory path: those with exactly this path, else those named by its last part.
  std::vector<Vm> at_path(std::string_view vm_path);

  /// Takes its ended jobs without points along; returns the context id. Throws
  /// vm_context_not_found, vm_has_backups (also while a job runs).
  std::string erase(const std::string& vm_name);

  /// Inserts a VM that a repository's files describe, with its context id and disk indices; one
  /// that is known gets the disks that it lacks. False when another VM has its name. Inside the
  /// caller's transaction.
  bool adopt(const Vm& vm);

 private:
  void adopt_disks(const Vm& known, const Vm& found);
  std::vector<Vm> select(std::string_view where, std::string_view value);

  Db& db_;
};

}  // namespace engine
