// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "engine/catalogue/schema.h"

/// The views for operators' queries; nothing in varve reads them. docs/catalogue.md explains each
/// column.
namespace engine {
namespace {

constexpr const char* kRepositories = R"sql(
CREATE VIEW backup_repositories AS
SELECT id, name, type AS repository_type, enabled, config, is_immutable, min_retention_days,
  total_bytes AS total_size_bytes, used_bytes AS used_size_bytes,
  available_bytes AS available_size_bytes,
  strftime('%Y-%m-%dT%H:%M:%SZ', measured_at, 'unixepoch') AS last_check_at, abilities,
  strftime('%Y-%m-%dT%H:%M:%SZ', created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', updated_at, 'unixepoch') AS updated_at
FROM repository
)sql";

constexpr const char* kVms = R"sql(
CREATE VIEW vm_replication_contexts AS
SELECT context_id, vm_name, vmware_vm_id, vm_path, vcenter_host, datacenter,
  CASE WHEN credentials_kind = 'reference' THEN credentials_ref END AS credential_id,
  power_state, os_type,
  strftime('%Y-%m-%dT%H:%M:%SZ', created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', updated_at, 'unixepoch') AS updated_at,
  expected_interval_seconds
FROM vm
)sql";

constexpr const char* kVmDisks = R"sql(
CREATE VIEW vm_disks AS
SELECT d.id, d.context_id AS vm_context_id, 'disk-' || d.disk_key AS disk_id, d.vmdk_path,
  (d.capacity_bytes + 1073741823) / 1073741824 AS size_gb, d.capacity_bytes, d.unit_number,
  d.datastore, d.label,
  (SELECT jd.change_id FROM point p JOIN job_disk jd ON jd.image_id = p.image_id
     JOIN job j ON j.id = jd.job_id
   WHERE j.context_id = d.context_id AND jd.disk_index = d.disk_index AND j.deleting = 0
     AND length(jd.change_id) - length(replace(jd.change_id, '/', '')) = 1
   ORDER BY j.completed_at DESC, j.row DESC LIMIT 1) AS disk_change_id,
  d.disk_index, d.removed,
  strftime('%Y-%m-%dT%H:%M:%SZ', d.created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', d.updated_at, 'unixepoch') AS updated_at
FROM vm_disk d
)sql";

constexpr const char* kBackupContexts = R"sql(
CREATE VIEW vm_backup_contexts AS
SELECT b.id AS context_id, vm.vm_name, vm.vmware_vm_id, vm.vm_path, vm.vcenter_host,
  vm.datacenter, b.repository_id, b.total_backups_run, b.successful_backups, b.failed_backups,
  nullif(b.last_backup_id, '') AS last_backup_id, nullif(b.last_backup_type, '') AS last_backup_type,
  strftime('%Y-%m-%dT%H:%M:%SZ', b.last_backup_at, 'unixepoch') AS last_backup_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', b.created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', b.updated_at, 'unixepoch') AS updated_at,
  b.context_id AS vm_context_id
FROM backup_context b JOIN vm ON vm.context_id = b.context_id
)sql";

constexpr const char* kJobs = R"sql(
CREATE VIEW backup_jobs AS
SELECT j.id, b.id AS vm_backup_context_id, j.context_id AS vm_context_id, j.vm_name,
  0 AS disk_id, j.repository_id, nullif(j.policy_id, '') AS policy_id, j.type AS backup_type,
  CASE j.state WHEN 'preparing' THEN 'pending' WHEN 'finalizing' THEN 'running' ELSE j.state END
    AS status,
  CASE d.disks WHEN 1 THEN first.image_path ELSE '/multi-disk-parent' END AS repository_path,
  CASE d.disks WHEN 1 THEN first.image_path ELSE '/multi-disk-parent' END AS file_path,
  CASE WHEN j.type <> 'full' THEN nullif(first.parent_job_id, '') END AS parent_backup_id,
  CASE j.state WHEN 'completed' THEN nullif(first.change_id, '') END AS change_id,
  d.bytes_received AS bytes_transferred,
  max(d.bytes_received, CASE WHEN d.disks = 1 AND j.total_bytes > 0 THEN j.total_bytes
    ELSE d.capacity_bytes END) AS total_bytes,
  0 AS compression_enabled, nullif(j.error_message, '') AS error_message,
  strftime('%Y-%m-%dT%H:%M:%SZ', j.created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', j.started_at, 'unixepoch') AS started_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', j.completed_at, 'unixepoch') AS completed_at,
  coalesce(nullif(j.current_phase, ''), 'pending') AS current_phase, j.transfer_speed_bps,
  j.eta_seconds,
  CASE WHEN j.state = 'completed' THEN 100.0 ELSE min(j.progress_percent, 99.9) END
    AS progress_percent,
  strftime('%Y-%m-%dT%H:%M:%SZ', j.last_telemetry_at, 'unixepoch') AS last_telemetry_at,
  j.state, j.tags, j.warnings,
  CASE WHEN j.samples_recorded > 0 THEN printf('{"duration_seconds":%d,'
      || '"snapshots_recorded":%d,"peak_speed_bps":%d,"avg_speed_bps":%d,"min_speed_bps":%d}',
    coalesce(j.completed_at - j.started_at, 0), j.samples_recorded, j.speed_peak_bps,
    CAST(j.speed_sum_bps / j.samples_recorded AS INTEGER), j.speed_min_bps) END
    AS performance_metrics
FROM job j
JOIN backup_context b ON b.context_id = j.context_id AND b.repository_id = j.repository_id
JOIN (SELECT job_id, count(*) AS disks, min(disk_index) AS first_index,
        sum(bytes_received) AS bytes_received, sum(capacity_bytes) AS capacity_bytes
      FROM job_disk GROUP BY job_id) d ON d.job_id = j.id
JOIN job_disk first ON first.job_id = j.id AND first.disk_index = d.first_index
)sql";

constexpr const char* kDisks = R"sql(
CREATE VIEW backup_disks AS
SELECT d.id, b.id AS vm_backup_context_id, d.job_id AS backup_job_id, d.disk_index,
  d.disk_key AS vmware_disk_key, (d.capacity_bytes + 1073741823) / 1073741824 AS size_gb,
  d.unit_number, nullif(d.change_id, '') AS disk_change_id, d.image_path AS qcow2_path,
  d.bytes_received AS bytes_transferred,
  CASE d.state WHEN 'transferring' THEN 'running' WHEN 'sealing' THEN 'running'
    WHEN 'sealed' THEN 'completed' ELSE d.state END AS status,
  nullif(d.error_message, '') AS error_message,
  strftime('%Y-%m-%dT%H:%M:%SZ', d.created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', d.completed_at, 'unixepoch') AS completed_at,
  CASE WHEN d.state IN ('sealed', 'completed') THEN 100.0
    ELSE min(99.9, 100.0 * d.covered_bytes / d.capacity_bytes) END AS progress_percent,
  d.image_id, nullif(d.parent_image_id, '') AS parent_image_id, d.type AS backup_type,
  d.capacity_bytes, nullif(d.handed_out_change_id, '') AS handed_out_change_id, d.bytes_zeroed,
  d.bytes_elided, d.bytes_stored, p.chain_id, p.position AS chain_position, d.export_name,
  d.judged_bytes, d.incompressible_bytes, d.zero_data_bytes
FROM job_disk d JOIN job j ON j.id = d.job_id
JOIN backup_context b ON b.context_id = j.context_id AND b.repository_id = j.repository_id
LEFT JOIN point p ON p.image_id = d.image_id
)sql";

constexpr const char* kChains = R"sql(
CREATE VIEW backup_chains AS
SELECT c.id, c.id AS chain_id, c.context_id AS vm_context_id, vm.vm_name,
  c.disk_index AS disk_id, c.repository_id,
  (SELECT d.job_id FROM point p JOIN job_disk d ON d.image_id = p.image_id
   WHERE p.chain_id = c.id ORDER BY p.position LIMIT 1) AS full_backup_id,
  (SELECT d.job_id FROM point p JOIN job_disk d ON d.image_id = p.image_id
   WHERE p.chain_id = c.id ORDER BY p.position DESC LIMIT 1) AS latest_backup_id,
  (SELECT count(*) FROM point p WHERE p.chain_id = c.id) AS total_backups,
  (SELECT coalesce(sum(d.capacity_bytes), 0) FROM point p JOIN job_disk d ON d.image_id = p.image_id
   WHERE p.chain_id = c.id) AS total_size_bytes,
  strftime('%Y-%m-%dT%H:%M:%SZ', c.created_at, 'unixepoch') AS created_at,
  strftime('%Y-%m-%dT%H:%M:%SZ', c.updated_at, 'unixepoch') AS updated_at,
  c.generation
FROM chain c JOIN vm ON vm.context_id = c.context_id
)sql";

constexpr std::array<const char*, 7> kViews = {kRepositories, kVms,   kVmDisks, kBackupContexts,
                                               kJobs,         kDisks, kChains};

}  // namespace

std::span<const char* const> catalogue_views() { return kViews; }

}  // namespace engine
