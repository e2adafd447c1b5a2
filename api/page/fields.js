// SPDX-License-Identifier: Apache-2.0
/// Every member of the API's answers that the page reads, by schema of /openapi.json: "name", or "name Type" where the
/// value is an object, or "name [Type]" where it is a list of them. A test compares this table with the schemas.
export const FIELDS = {
  "Backup": [
    "backup_id",
    "vm_name",
    "backup_type",
    "repository_id",
    "status",
    "state",
    "client",
    "bytes_transferred",
    "bytes_zeroed",
    "bytes_elided",
    "bytes_stored",
    "total_bytes",
    "disks_count",
    "error_message",
    "current_phase",
    "transfer_speed_bps",
    "seconds_left",
    "progress_percent",
    "created_at",
    "started_at",
    "completed_at",
    "resumable",
    "warnings [Warning]"
  ],
  "BackupList": ["backups [Backup]", "total"],
  "BackupDay": ["date", "backup_count", "bytes_received", "bytes_stored", "seconds"],
  "BackupDays": ["days [BackupDay]"],
  "CancelledBackup": ["message"],
  "ChangedRange": ["offset", "length", "zero"],
  "Changes": ["size_bytes", "ranges [ChangedRange]", "bytes", "next_offset"],
  "Export": [
    "name",
    "kind",
    "backup_id",
    "disk_id",
    "vm_name",
    "read_only",
    "size_bytes",
    "state",
    "uris",
    "connections",
    "bytes_received",
    "bytes_read",
    "opened_at",
    "last_request_at"
  ],
  "ExportList": ["exports [Export]"],
  "Flag": ["flag", "reason"],
  "Health": ["version"],
  "ImageVerification": ["backup_id", "vm_name", "disk_id", "result", "damaged_bytes", "problem"],
  "LastPoint": [
    "backup_id",
    "backup_type",
    "completed_at",
    "allocated_bytes",
    "chain_length",
    "verified_at",
    "verification"
  ],
  "ListedVmContext": [
    "vm_name",
    "current_status",
    "current_job_id",
    "last_status_change",
    "created_at",
    "disk_count",
    "capacity_bytes",
    "damaged_points",
    "last_point LastPoint",
    "expected_interval_seconds",
    "last_good_at",
    "overdue"
  ],
  "Point": [
    "backup_id",
    "vm_name",
    "disk_id",
    "backup_type",
    "repository_id",
    "completed_at",
    "size_bytes",
    "allocated_bytes",
    "verified_at",
    "verification",
    "signals Signals",
    "generation",
    "position",
    "locked",
    "locked_until",
    "uris"
  ],
  "PointList": ["points [Point]"],
  "Problem": ["error", "details", "hint", "status", "code"],
  "Promotion": ["path", "state", "total_bytes", "copied_bytes", "error"],
  "Repository": [
    "id",
    "name",
    "type",
    "enabled",
    "available",
    "unavailable_reason",
    "is_immutable",
    "min_retention_days",
    "storage_info StorageInfo"
  ],
  "RepositoryList": ["repositories [Repository]"],
  "Restore": [
    "restore_id",
    "backup_id",
    "vm_name",
    "mode",
    "state",
    "created_at",
    "expires_at",
    "written_bytes",
    "promotion Promotion",
    "disks [RestoreDisk]"
  ],
  "RestoreDisk": ["disk_id", "uris"],
  "RestoreList": ["restores [Restore]"],
  "Signals": ["change_share", "incompressible_share", "zero_share", "elided_share", "flags [Flag]"],
  "StorageInfo": ["total_bytes", "used_bytes", "available_bytes", "backup_count", "last_check_at"],
  "Verification": [
    "verification_id",
    "backup_id",
    "vm_name",
    "begun_by",
    "state",
    "image_count",
    "skipped_count",
    "total_bytes",
    "read_bytes",
    "started_at",
    "ended_at",
    "error",
    "damaged_backups",
    "images [ImageVerification]"
  ],
  "VerificationList": ["verifications [Verification]"],
  "VmContextList": ["vm_contexts [ListedVmContext]"],
  "Warning": ["code", "disk_id", "message"]
};

/// The value with the members of the table only, so that nothing else can be read anywhere.
export function read(schema, value) {
  if (value === null || value === undefined) return value;
  const known = {};
  for (const field of FIELDS[schema]) {
    const [name, type] = field.split(" ");
    const given = value[name];
    if (!type) known[name] = given;
    else if (type[0] === "[") known[name] = (given ?? []).map((each) => read(type.slice(1, -1), each));
    else known[name] = read(type, given);
  }
  return known;
}
