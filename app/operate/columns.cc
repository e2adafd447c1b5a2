// SPDX-License-Identifier: Apache-2.0
#include "app/operate/columns.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <stdexcept>

#include "api/schema.h"

namespace app {

const Selection kNewestPoints{"Point",
                              {{"vm_name", "VM"},
                               {"backup_id", "NEWEST BACKUP"},
                               {"backup_type", "TYPE"},
                               {"completed_at", "COMPLETED", "never"},
                               {"size_bytes", "DISK SIZE"},
                               {"bytes_stored", "STORED"},
                               {"verified_at", "VERIFIED", "never"},
                               {"verification", "RESULT"}}};
const Selection kChainPoints{"Point",
                             {{"backup_id", "BACKUP"},
                              {"backup_type", "TYPE"},
                              {"completed_at", "COMPLETED"},
                              {"bytes_received", "RECEIVED"},
                              {"bytes_stored", "STORED"},
                              {"verified_at", "VERIFIED", "never"},
                              {"verification", "RESULT"},
                              {"locked", "LOCKED"}}};
const Selection kVms{"ListedVmContext",
                     {{"vm_name", "VM"},
                      {"current_status", "STATUS"},
                      {"last_job_at", "LAST BACKUP", "never"},
                      {"last_good_at", "LAST GOOD", "never"},
                      {"expected_interval_seconds", "EXPECTED"},
                      {"overdue", "OVERDUE"},
                      {"total_jobs_run", "BACKUPS"},
                      {"failed_jobs", "FAILED"},
                      {"current_job_id", "RUNNING"},
                      {"vcenter_host", "VCENTER"}}};
const Selection kVm{"VmContext",
                    {{"vm_name", "VM"},
                     {"context_id", "Context id"},
                     {"current_status", "Status"},
                     {"current_job_id", "Running"},
                     {"last_successful_job_id", "Last good backup", "none"},
                     {"last_job_at", "Last backup", "never"},
                     {"last_good_at", "Last good point", "never"},
                     {"expected_interval_seconds", "Expected every", "none"},
                     {"overdue", "Overdue"},
                     {"total_jobs_run", "Backups"},
                     {"failed_jobs", "Failed"},
                     {"vm_path", "Inventory path"},
                     {"vcenter_host", "vCenter"},
                     {"credentials.kind", "Credentials"},
                     {"created_at", "Registered"}}};
const Selection kVmExpected{"VmContext",
                            {{"vm_name", "VM"},
                             {"last_good_at", "Last good point", "never"},
                             {"expected_interval_seconds", "Expected every", "none"},
                             {"overdue", "Overdue"}}};
const Selection kVmDisks{"VmDisk",
                         {{"disk_index", "DISK"},
                          {"disk_id", "ID"},
                          {"capacity_bytes", "SIZE"},
                          {"label", "LABEL"},
                          {"disk_change_id", "CHANGE ID"},
                          {"removed", "REMOVED"}}};
const Selection kVmJobs{"Backup",
                        {{"backup_id", "BACKUP"},
                         {"backup_type", "TYPE"},
                         {"state", "STATE"},
                         {"created_at", "STARTED"},
                         {"bytes_transferred", "RECEIVED"},
                         {"bytes_stored", "STORED"},
                         {"error_message", "ERROR", ""}}};
const Selection kRunningJobs{"Backup",
                             {{"vm_name", "VM"},
                              {"backup_id", "BACKUP"},
                              {"backup_type", "TYPE"},
                              {"state", "STATE"},
                              {"progress_percent", "DONE"},
                              {"bytes_transferred", "RECEIVED"},
                              {"transfer_speed_bps", "RATE"},
                              {"created_at", "STARTED"}}};
const Selection kBackup{"Backup",
                        {{"backup_id", "Backup"},
                         {"vm_name", "VM"},
                         {"backup_type", "Type"},
                         {"state", "State"},
                         {"error_message", "Error", ""},
                         {"repository_id", "Repository"},
                         {"created_at", "Started"},
                         {"completed_at", "Ended", ""},
                         {"bytes_transferred", "Received"},
                         {"bytes_zeroed", "Zeroed"},
                         {"bytes_elided", "Elided"},
                         {"bytes_stored", "Stored"},
                         {"client", "Client"},
                         {"resumes", "Resumes", ""},
                         {"resumable", "Resumable", ""},
                         {"tags", "Tags", ""}}};
const Selection kBackupDisks{"BackupDisk",
                             {{"disk_index", "DISK"},
                              {"capacity_bytes", "SIZE"},
                              {"backup_type", "TYPE"},
                              {"state", "STATE"},
                              {"bytes_received", "RECEIVED"},
                              {"bytes_zeroed", "ZEROED"},
                              {"bytes_elided", "ELIDED"},
                              {"bytes_stored", "STORED"},
                              {"change_id", "CHANGE ID"},
                              {"parent_backup_id", "STANDS ON"}}};
const Selection kPointDisks{"Point",
                            {{"disk_id", "DISK"},
                             {"verified_at", "VERIFIED", "never"},
                             {"verification", "RESULT"},
                             {"uris", "NBD EXPORT"}}};
const Selection kWarnings{"Warning",
                          {{"code", "Warning"}, {"disk_id", "Disk"}, {"message", "Message"}}};
const Selection kRepositories{"Repository",
                              {{"id", "ID"},
                               {"name", "NAME"},
                               {"type", "TYPE"},
                               {"available", "AVAILABLE"},
                               {"storage_info.available_bytes", "FREE"},
                               {"storage_info.total_bytes", "OF"},
                               {"storage_info.used_percent", "USED"},
                               {"storage_info.backup_count", "BACKUPS"},
                               {"unavailable_reason", "REASON", ""}}};
const Selection kRepository{"Repository",
                            {{"id", "Repository"},
                             {"name", "Name"},
                             {"type", "Type"},
                             {"available", "Available"},
                             {"unavailable_reason", "Reason", ""},
                             {"enabled", "Enabled"},
                             {"config.path", "Directory", ""},
                             {"config.mount_point", "Mount point", ""},
                             {"config.server", "Server", ""},
                             {"config.export_path", "Export", ""},
                             {"config.share_name", "Share", ""},
                             {"storage_info.available_bytes", "Free"},
                             {"storage_info.total_bytes", "Size"},
                             {"storage_info.used_percent", "Used"},
                             {"storage_info.backup_count", "Backups"},
                             {"storage_info.last_check_at", "Measured", "never"},
                             {"created_at", "Added"}}};
const Selection kRepositoryTest{"RepositoryTest",
                                {{"message", "Result"},
                                 {"error_details", "Cause", ""},
                                 {"storage_info.available_bytes", "Free", ""},
                                 {"storage_info.total_bytes", "Size", ""}}};
const Selection kTokens{"", {{"name", "NAME"}, {"created_at", "CREATED"}, {"scopes", "SCOPES"}}};
const Selection kHealth{"Health",
                        {{"service", "Service"}, {"version", "Version"}, {"status", "Status"}}};
const Selection kProgress{"Backup",
                          {{"bytes_transferred", "received"},
                           {"bytes_zeroed", "zero"},
                           {"bytes_elided", "elided"},
                           {"bytes_stored", "stored"},
                           {"transfer_speed_bps", "rate"},
                           {"progress_percent", "done"}}};

const Selection kVerification{"Verification",
                              {{"verification_id", "Verification"},
                               {"vm_name", "VM", ""},
                               {"backup_id", "Backup", ""},
                               {"state", "State"},
                               {"error", "Error", ""},
                               {"image_count", "Images"},
                               {"skipped_count", "Skipped"},
                               {"read_bytes", "Read"},
                               {"started_at", "Started"},
                               {"ended_at", "Ended", ""},
                               {"damaged_backups", "Damaged", "none"}}};
const Selection kPromotion{"Promotion",
                           {{"path", "Copy"},
                            {"format", "Format"},
                            {"state", "State"},
                            {"error", "Error", ""},
                            {"copied_bytes", "Copied"},
                            {"total_bytes", "Size"},
                            {"started_at", "Started"},
                            {"ended_at", "Ended", ""}}};
const Selection kVerificationProgress{"Verification",
                                      {{"read_bytes", "read"}, {"total_bytes", "of"}}};
const Selection kPromotionProgress{"Promotion",
                                   {{"copied_bytes", "copied"}, {"total_bytes", "of"}}};

std::span<const Selection* const> all_selections() {
  static const std::array kAll = {
      &kNewestPoints,     &kChainPoints, &kVms,          &kVm,         &kVmExpected,
      &kVmDisks,          &kVmJobs,      &kRunningJobs,  &kBackup,     &kBackupDisks,
      &kPointDisks,       &kWarnings,    &kRepositories, &kRepository, &kRepositoryTest,
      &kHealth,           &kProgress,    &kVerification, &kPromotion,  &kVerificationProgress,
      &kPromotionProgress};
  return kAll;
}

namespace {

std::optional<std::string_view> find_type(const Selection& selection, const Column& column) {
  std::string_view schema_name = selection.schema, path = column.member;
  for (;;) {
    const size_t dot = path.find('.');
    const api::Schema* const schema = api::find_schema(schema_name);
    const api::Member* found = nullptr;
    for (size_t i = 0; schema != nullptr && i < schema->members.size(); ++i) {
      if (schema->members[i].name == path.substr(0, dot)) found = &schema->members[i];
    }
    if (found == nullptr) return std::nullopt;
    if (dot == std::string_view::npos) return found->type;
    schema_name = found->type.substr(0, found->type.find_first_of("?|"));
    path = path.substr(dot + 1);
  }
}

}  // namespace

std::string_view type_of(const Selection& selection, const Column& column) {
  if (selection.schema.empty()) return "string";
  if (const auto type = find_type(selection, column)) return *type;
  throw std::logic_error(fmt::format("the API's {} has no {}", selection.schema, column.member));
}

nlohmann::json member_of(const nlohmann::json& object, std::string_view path) {
  const size_t dot = path.find('.');
  if (!object.is_object()) return nullptr;
  const auto found = object.find(std::string(path.substr(0, dot)));
  if (found == object.end()) return nullptr;
  return dot == std::string_view::npos ? *found : member_of(*found, path.substr(dot + 1));
}

std::string cell_text(const Selection& selection, const Column& column,
                      const nlohmann::json& object, const Style& style) {
  const std::string_view name = column.member.substr(column.member.rfind('.') + 1);
  return value_text(member_of(object, column.member), name, type_of(selection, column),
                    column.missing, style);
}

}  // namespace app
