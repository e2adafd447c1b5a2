// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "api/object.h"
#include "engine/values/views.h"

/// Backups, their disks, chains and progress as JSON: the tables that docs/http-api.md describes
/// under "Backups" and "Telemetry". Pure.
namespace api {

/// What current_phase shows: telemetry's last phase, else the state.
std::string_view current_phase(const engine::Job& job);
/// JSON has neither infinity nor NaN: 0 for them.
double finite(double number);

/// A backup as the API shows it.
struct ShownBackup {
  const engine::BackupView& view;
  int64_t pid;  ///< shown as qemu_nbd_pid
  /// In the answer to POST the backup's status is "started", its disks' "prepared".
  bool just_started = false;
};

struct ShownChain {
  const engine::ChainView& chain;
  int64_t pid;
};

const Object<ShownBackup>& backup_object();
const Object<engine::BackupDiskView>& backup_disk_object();
const Object<ShownChain>& chain_object();
const Object<engine::TelemetryHistory>& telemetry_history_object();

struct ShownBackupList {
  const engine::BackupList& found;
  int64_t pid;
};

/// The answer of GET /backups, and what events carry.
const Object<ShownBackupList>& backup_list_object();

/// An array of backups.
template <typename Range>
Json backup_list(const Range& backups, int64_t pid) {
  Json list = Json::array();
  for (const engine::BackupView& view : backups) list.push_back(backup_object().json({view, pid}));
  return list;
}

/// The schemas of these objects and of those inside them.
std::vector<Schema> backup_schemas();
std::vector<Schema> chain_schemas();
std::vector<Schema> telemetry_history_schemas();

}  // namespace api
