// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// The expected refusals of the engine, with their exact texts.
///
/// A refusal is an answer to the caller, not a fault of the program: no state has changed, or a
/// rollback has already happened. Everything else that the facade throws is a failure. Texts and
/// code words are those of docs/http-api.md; a text has one code wherever it appears. Plain values,
/// usable on any thread.
namespace engine {

/// Why, free of HTTP; api turns it into a status.
enum class RefusalKind : uint8_t {
  invalid,       ///< the request cannot be right, whatever the state
  not_found,     ///< it names something that does not exist
  conflict,      ///< it contradicts the present state
  unavailable,   ///< not now: shutting down, out of ports
  out_of_space,  ///< the repository is too full
  failed,        ///< it was tried and did not work
};

class Refusal : public std::runtime_error {
 public:
  Refusal(RefusalKind kind, std::string code, std::string error, std::string_view details = "",
          std::string_view hint = "", std::string_view backup_id = "")
      : std::runtime_error(details.empty() ? error : error + ": " + std::string(details)),
        kind(kind),
        code(std::move(code)),
        error(std::move(error)),
        details(details),
        hint(hint),
        backup_id(backup_id) {}

  RefusalKind kind;
  std::string code;       ///< stable machine word
  std::string error;      ///< exact text, which programs compare
  std::string details;    ///< cause; "" when there is none; never a password
  std::string hint;       ///< what to do, one sentence; may be ""
  std::string backup_id;  ///< the job concerned; "" where none exists
};

/// One maker per refusal, so that each text is written once.
namespace refusals {

// Starting a backup, in the order of the checks.
Refusal vm_not_found(std::string_view vm_name);
Refusal vm_ambiguous(std::string_view vm_name, const std::vector<std::string>& context_ids);
Refusal no_disks();
Refusal vm_disks_unreadable(std::string_view cause);
Refusal repository_not_found(std::string_view repository_id);
Refusal repository_disabled(std::string_view repository_id);
/// Also of deletions and measurements.
Refusal repository_unavailable(std::string_view repository_id, std::string_view cause);
Refusal backup_already_running(std::string_view running_backup_id);
Refusal no_previous_backup();
Refusal chain_too_long(uint32_t disk_index, uint32_t images_max);
/// The writer's changes are against something else than the parent of disk `disk_index`.
/// `why`: a sentence's end after "backup 'x' ".
Refusal not_resumable(std::string_view backup_id, std::string_view why);
Refusal base_is_not_the_parent(std::string_view base, uint32_t disk_index, std::string_view parent);
Refusal vm_has_no_vcenter(std::string_view vm_name);
Refusal credentials_missing();
Refusal credentials_unresolved(std::string_view cause);
Refusal shutting_down();
/// Bytes: free now, kept in reserve, and missing for this job.
Refusal no_space(uint64_t free_bytes, uint64_t reserve_bytes, uint64_t missing_bytes);
Refusal no_ports(uint16_t first_port, uint16_t last_port);
Refusal backup_context_not_created(std::string_view cause);
Refusal backup_job_not_created(std::string_view cause);
/// `what` names disk, path and cause.
Refusal disk_not_prepared(std::string_view backup_id, std::string_view what);
Refusal node_unreachable(std::string_view backup_id, std::string_view cause);
/// `text` is the node's answer; only its first 512 bytes are shown.
Refusal node_refused(std::string_view backup_id, int status, std::string_view text);

// One backup.
Refusal backup_not_found(std::string_view backup_id);
/// complete: no such job, or no such disk in it.
Refusal job_not_found(std::string_view backup_id, std::string_view details);
/// complete of a failed or cancelled job, cancel of an ended one: `details` is state and cause.
Refusal job_not_running(std::string_view backup_id, std::string_view details);
Refusal change_id_conflict(std::string_view backup_id, std::string_view details);
Refusal disk_never_connected(std::string_view backup_id, std::string_view details);
/// complete of a decided job that an error holds up.
Refusal backup_being_published(std::string_view backup_id, std::string_view cause);
Refusal complete_failed(std::string_view backup_id, std::string_view cause);
Refusal backup_is_running(std::string_view backup_id);
Refusal backup_has_dependents(std::string_view backup_id, const std::vector<std::string>& jobs);
Refusal backup_is_immutable(std::string_view backup_id, std::string_view details);
Refusal backup_is_in_use(std::string_view backup_id, std::string_view details);

// Restore points.
Refusal point_not_found(std::string_view vm_name, std::optional<uint32_t> disk_index,
                        std::string_view point);

Refusal backup_is_not_completed(std::string_view backup_id, std::string_view state);
Refusal restore_not_found(std::string_view restore_id);
Refusal restore_is_not_ready(std::string_view restore_id, std::string_view state);
/// Clients are connected to an overlay that is to be copied.
Refusal restore_is_in_use(std::string_view restore_id, uint64_t connections);
Refusal verification_not_found(std::string_view id);
Refusal verification_is_running(std::string_view id);
Refusal promotion_path_invalid(std::string_view path, std::string_view cause);
Refusal promotion_path_exists(std::string_view path);
Refusal promotion_is_running(std::string_view details);
Refusal promotion_is_not_running(std::string_view restore_id);
/// `since` is no older point of the same disk.
Refusal points_not_comparable(std::string_view backup_id, std::string_view details);

// Telemetry.
Refusal telemetry_job_not_found(std::string_view job_id);

// Repositories. Config texts arrive without their fixed part.
Refusal unknown_repository(std::string_view repository_id);
Refusal repository_name_missing();
Refusal repository_type_missing();
/// `type` is "local", "nfs", "cifs" or "smb".
Refusal repository_config_invalid(std::string_view type, std::string_view cause);
Refusal repository_type_unsupported(std::string_view type);
Refusal repository_name_taken();
Refusal repository_id_taken();
Refusal repository_has_backups(std::string_view details);

// VM contexts.
Refusal vm_context_not_found(std::string_view vm_name);
Refusal vm_context_id_not_found(std::string_view context_id);
/// `details` names the member.
Refusal vm_context_invalid(std::string_view details);
Refusal vm_backup_running(std::string_view running_backup_id);
Refusal vm_of_other_vcenter(std::string_view vcenter_host);
Refusal vm_has_backups(std::string_view details);

}  // namespace refusals
}  // namespace engine
