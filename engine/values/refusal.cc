// SPDX-License-Identifier: Apache-2.0
#include "engine/values/refusal.h"

#include <fmt/format.h>

namespace engine::refusals {
namespace {

using enum RefusalKind;

constexpr size_t kNodeTextShown = 512;  // bytes of the node's answer that we repeat

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

std::string quoted(std::string_view what, std::string_view name) {
  return fmt::format("{} '{}'", what, name);
}

Refusal about(std::string_view backup_id, Refusal refusal) {
  refusal.backup_id = backup_id;
  return refusal;
}

Refusal catalogue_error(std::string error, std::string_view cause) {
  return {failed, "catalogue_error", std::move(error), cause,
          "Look at the log of varve and at the disk that holds the catalogue."};
}

// "Invalid nfs repository config" is written with the type's usual spelling.
std::string_view spelled(std::string_view type) {
  if (type == "nfs") return "NFS";
  if (type == "cifs" || type == "smb") return "CIFS";
  return type;
}

}  // namespace

Refusal vm_not_found(std::string_view vm_name) {
  return {not_found, "vm_not_found", "VM not found", quoted("no VM", vm_name),
          "Register the VM with PUT /api/v1/vm-contexts/{vm_name}."};
}

Refusal vm_ambiguous(std::string_view vm_name, const std::vector<std::string>& context_ids) {
  return {conflict, "vm_ambiguous", "VM name is ambiguous",
          fmt::format("'{}' is {}", vm_name, joined(context_ids)),
          "Use the name under which the VM is registered."};
}

Refusal no_disks() {
  return {not_found, "no_disks", "No disks found for VM",
          "VM has no disks in database - ensure VM discovery completed",
          "Register the VM's disks with PUT /api/v1/vm-contexts/{vm_name}."};
}

Refusal vm_disks_unreadable(std::string_view cause) {
  return catalogue_error("failed to get VM disks", cause);
}

Refusal repository_not_found(std::string_view repository_id) {
  return {not_found, "repository_not_found", "repository not found",
          quoted("no repository", repository_id),
          "List repositories with GET /api/v1/repositories."};
}

Refusal repository_disabled(std::string_view repository_id) {
  return {conflict, "repository_disabled", "repository is disabled",
          quoted("repository", repository_id), "Choose a repository that is enabled."};
}

Refusal repository_unavailable(std::string_view repository_id, std::string_view cause) {
  return {unavailable, "repository_unavailable", "repository is unavailable",
          fmt::format("repository '{}': {}", repository_id, cause),
          "Put right what the details name; varve looks again every few seconds."};
}

Refusal backup_already_running(std::string_view running_backup_id) {
  return about(running_backup_id,
               {conflict, "backup_running", "backup already running", running_backup_id,
                "Wait for the running backup to end, or cancel it."});
}

Refusal no_previous_backup() {
  return {invalid, "no_parent", "no previous backup found",
          "full backup required before incremental",
          "Start a backup with backup_type full in this repository."};
}

Refusal chain_too_long(uint32_t disk_index, uint32_t images_max) {
  return {conflict, "chain_too_long", "chain is too long",
          fmt::format("the chain of disk {} has {} images, the most that can be read together",
                      disk_index, images_max),
          "Start a backup with backup_type full, which begins a new chain."};
}

Refusal not_resumable(std::string_view backup_id, std::string_view why) {
  return about(backup_id, {conflict, "not_resumable", "the backup cannot be resumed",
                           fmt::format("backup '{}' {}", backup_id, why),
                           "Start a new backup without resume."});
}

Refusal base_is_not_the_parent(std::string_view base, uint32_t disk_index,
                               std::string_view parent) {
  return {conflict, "base_mismatch", "base is not the parent",
          fmt::format("disk {}: {}, not '{}'", disk_index, parent, base),
          "Send the changes since the parent and name it as base, or start a full backup."};
}

Refusal vm_has_no_vcenter(std::string_view vm_name) {
  return {invalid, "no_vcenter", "VM is registered without a vCenter",
          fmt::format("'{}' has no vcenter_host, so no node can be called for it", vm_name),
          "Send \"client\": \"external\" and write the disks yourself, or register vm_path, "
          "vcenter_host and credentials."};
}

Refusal credentials_missing() {
  return {invalid, "no_credentials", "VM context missing credential_id", "",
          "Register credentials with PUT /api/v1/vm-contexts/{vm_name}."};
}

Refusal credentials_unresolved(std::string_view cause) {
  return {
      failed, "credentials_error", "failed to get VMware credentials", cause,
      "Add [secrets.NAME] with username and password to varve.toml and reload varve, or register "
      "the VM with other credentials."};
}

Refusal shutting_down() {
  return {unavailable, "shutting_down", "server is shutting down", "",
          "Try again when varve is running again."};
}

Refusal no_space(uint64_t free_bytes, uint64_t reserve_bytes, uint64_t missing_bytes) {
  return {out_of_space, "no_space", "insufficient space in repository",
          fmt::format("{} bytes free, {} bytes in reserve, {} bytes missing", free_bytes,
                      reserve_bytes, missing_bytes),
          "Delete old backups or enlarge the repository's file system."};
}

Refusal no_ports(uint16_t first_port, uint16_t last_port) {
  return {unavailable, "no_ports", "no available NBD ports",
          fmt::format("no available ports in range {}-{} (all {} ports allocated)", first_port,
                      last_port, last_port - first_port + 1),
          "Wait for a running backup to end; GET /api/v1/nbd/ports/status lists the ports."};
}

Refusal backup_context_not_created(std::string_view cause) {
  return catalogue_error("failed to create backup context", cause);
}

Refusal backup_job_not_created(std::string_view cause) {
  return catalogue_error("failed to create parent backup job", cause);
}

Refusal disk_not_prepared(std::string_view backup_id, std::string_view what) {
  return about(backup_id, {failed, "prepare_failed", "failed to prepare backup disk", what,
                           "Put right what the details name; a full backup needs no parent."});
}

Refusal node_unreachable(std::string_view backup_id, std::string_view cause) {
  return about(backup_id, {failed, "node_unreachable", "failed to call SNA API", cause,
                           "Check the tunnel to the node and the setting node_url."});
}

Refusal node_refused(std::string_view backup_id, int status, std::string_view text) {
  return about(backup_id, {failed, "node_refused", "SNA API error",
                           fmt::format("status: {} {}", status, text.substr(0, kNodeTextShown)),
                           "Look at the node's own log."});
}

Refusal backup_not_found(std::string_view backup_id) {
  return {not_found, "backup_not_found", "backup not found", quoted("no backup", backup_id),
          "List backups with GET /api/v1/backups."};
}

Refusal job_not_found(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {not_found, "job_not_found", "backup job not found", details,
                           "List backups with GET /api/v1/backups."});
}

Refusal job_not_running(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {conflict, "job_not_running", "backup is not running", details,
                           "Start a new backup."});
}

Refusal change_id_conflict(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {conflict, "change_id_conflict", "disk already completed", details,
                           "The change id recorded first stays; a repeat must send the same one."});
}

Refusal disk_never_connected(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {conflict, "disk_never_connected", "disk received no data", details,
                           "Connect to the disk's export over NBD before completing it."});
}

Refusal backup_being_published(std::string_view backup_id, std::string_view cause) {
  return about(backup_id,
               {unavailable, "being_published", "backup is being published", cause,
                "All data are safe and varve tries again by itself; send the same request again."});
}

Refusal complete_failed(std::string_view backup_id, std::string_view cause) {
  return about(backup_id,
               {failed, "seal_failed", "failed to complete backup", cause,
                "The backup has failed; put right what the details name and start a new one."});
}

Refusal backup_is_running(std::string_view backup_id) {
  return about(backup_id,
               {conflict, "backup_is_running", "backup is running", quoted("backup", backup_id),
                "Cancel it first with POST /api/v1/backups/{backup_id}/cancel."});
}

Refusal backup_has_dependents(std::string_view backup_id, const std::vector<std::string>& jobs) {
  return about(backup_id, {conflict, "backup_has_dependents", "backup has dependents", joined(jobs),
                           "Delete them first, or all together with ?cascade=true."});
}

Refusal backup_is_immutable(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {conflict, "backup_is_immutable", "backup is immutable", details,
                           "Wait until the repository's retention allows it."});
}

Refusal backup_is_in_use(std::string_view backup_id, std::string_view details) {
  return about(
      backup_id,
      {conflict, "backup_is_in_use", "backup is in use", details,
       "Stop the program that has the image open (varve nbd, qemu, a machine on an overlay; "
       "fuser shows which), or let the backup end that is written on it; then delete again."});
}

Refusal point_not_found(std::string_view vm_name, std::optional<uint32_t> disk_index,
                        std::string_view point) {
  const std::string disk = disk_index ? fmt::format("disk {} of ", *disk_index) : "";
  return {not_found, "point_not_found", "restore point not found",
          fmt::format("{}'{}' has no point '{}'", disk, vm_name, point),
          "List points with GET /api/v1/points."};
}

Refusal backup_is_not_completed(std::string_view backup_id, std::string_view state) {
  return about(backup_id, {conflict, "backup_is_not_completed", "backup has no restore point",
                           fmt::format("'{}' is {}", backup_id, state),
                           "List points with GET /api/v1/points."});
}

Refusal restore_not_found(std::string_view restore_id) {
  return {not_found, "restore_not_found", "restore not found", quoted("no restore", restore_id),
          "List restores with GET /api/v1/restores."};
}

Refusal restore_is_not_ready(std::string_view restore_id, std::string_view state) {
  return {conflict, "restore_is_not_ready", "restore is not ready",
          fmt::format("'{}' is {}", restore_id, state), "Ask again when it is ready."};
}

Refusal restore_is_in_use(std::string_view restore_id, uint64_t connections) {
  return {conflict, "restore_is_in_use", "restore is in use",
          fmt::format("'{}' has {} NBD connections", restore_id, connections),
          "Shut the machine that runs from it down, or move its disk away while it runs: "
          "docs/restore.md, \"A virtual machine from a point\"."};
}

Refusal verification_not_found(std::string_view id) {
  return {not_found, "verification_not_found", "verification not found",
          quoted("no verification", id),
          "GET /api/v1/verifications lists those since varve has started."};
}

Refusal verification_is_running(std::string_view id) {
  return {conflict, "verification_is_running", "a verification is running",
          fmt::format("'{}' reads the disks already", id),
          "Wait until it has ended, or cancel it with DELETE /api/v1/verifications/{id}."};
}

Refusal promotion_path_invalid(std::string_view path, std::string_view cause) {
  return {invalid, "invalid_path", "path cannot be promoted to",
          fmt::format("'{}' {}", path, cause),
          "Name a file that is not there yet, by its absolute path, in a directory that is there "
          "and outside all repositories."};
}

Refusal promotion_path_exists(std::string_view path) {
  return {conflict, "path_exists", "path exists", quoted("there is", path),
          "Name another path, or remove what is there."};
}

Refusal promotion_is_running(std::string_view details) {
  return {conflict, "promotion_is_running", "a promotion is running", details,
          "Wait until it has ended, or cancel it with DELETE "
          "/api/v1/restores/{restore_id}/promote."};
}

Refusal promotion_is_not_running(std::string_view restore_id) {
  return {conflict, "promotion_is_not_running", "no promotion is running",
          quoted("nothing is copied of", restore_id),
          "GET /api/v1/restores/{restore_id} says what became of the last one."};
}

Refusal points_not_comparable(std::string_view backup_id, std::string_view details) {
  return about(backup_id, {conflict, "points_not_comparable", "points cannot be compared", details,
                           "List the points of the disk with GET /api/v1/points."});
}

Refusal telemetry_job_not_found(std::string_view job_id) {
  return {not_found, "job_not_found", "job not found", quoted("no job", job_id),
          "List backups with GET /api/v1/backups."};
}

Refusal unknown_repository(std::string_view repository_id) {
  return {not_found, "repository_not_found", fmt::format("Repository not found: {}", repository_id),
          "", "List repositories with GET /api/v1/repositories."};
}

Refusal repository_name_missing() {
  return {invalid, "repository_name_is_required", "Repository name is required"};
}

Refusal repository_type_missing() {
  return {invalid, "repository_type_is_required", "Repository type is required", "",
          "Types are local, nfs, cifs and smb."};
}

Refusal repository_config_invalid(std::string_view type, std::string_view cause) {
  const std::string fixed = fmt::format("Invalid {} repository config", spelled(type));
  return {invalid, fmt::format("invalid_{}_repository_config", type == "smb" ? "cifs" : type),
          fmt::format("{}: {}", fixed, cause)};
}

Refusal repository_type_unsupported(std::string_view type) {
  return {invalid, "unsupported_repository_type",
          fmt::format("Unsupported repository type: {}", type), "",
          "Types are local, nfs, cifs and smb."};
}

Refusal repository_name_taken() {
  return {conflict, "failed_to_register_repository",
          "Failed to register repository: name already exists", "", "Choose another name."};
}

Refusal repository_id_taken() {
  return {conflict, "failed_to_register_repository",
          "Failed to register repository: id already exists", "",
          "Choose another id, or leave it out."};
}

Refusal repository_has_backups(std::string_view details) {
  return {conflict, "cannot_delete_repository_with_existing_backups",
          "Cannot delete repository with existing backups", details, "Delete its backups first."};
}

Refusal vm_context_not_found(std::string_view vm_name) {
  return {not_found, "vm_context_not_found", fmt::format("VM context not found for: {}", vm_name),
          "", "List VMs with GET /api/v1/vm-contexts."};
}

Refusal vm_context_id_not_found(std::string_view context_id) {
  return {not_found, "vm_context_not_found",
          fmt::format("VM context not found for context_id: {}", context_id), "",
          "List VMs with GET /api/v1/vm-contexts."};
}

Refusal vm_context_invalid(std::string_view details) {
  return {invalid, "invalid_vm_context", "invalid vm context", details};
}

Refusal vm_backup_running(std::string_view running_backup_id) {
  return about(running_backup_id,
               {conflict, "vm_has_a_running_backup", "VM has a running backup", running_backup_id,
                "Change the disks after the running backup has ended."});
}

Refusal vm_of_other_vcenter(std::string_view vcenter_host) {
  return {conflict, "vm_name_already_registered_for_another_vcenter",
          "VM name already registered for another vCenter", quoted("vcenter_host", vcenter_host),
          "Register the second VM under another vm_name, or move this one with ?move=true."};
}

Refusal vm_has_backups(std::string_view details) {
  return {conflict, "vm_has_backups", "VM has backups", details, "Delete its backups first."};
}

}  // namespace engine::refusals
