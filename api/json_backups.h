#pragma once

#include <cstdint>

#include "api/json.h"
#include "engine/values/views.h"

/// Backups, their disks and chains as JSON. Pure. Spec: docs/http-api.md, "Backups".
namespace api {

/// `pid` is shown as qemu_nbd_pid.
Json to_json(const engine::BackupView& backup, int64_t pid);
/// The same as the answer to POST: status "started", disks "prepared".
Json started_json(const engine::BackupView& backup, int64_t pid);

Json to_json(const engine::BackupDiskView& disk);
Json to_json(const engine::ChainView& chain, int64_t pid);
Json to_json(const engine::TelemetryHistory& history);

}  // namespace api
