#include <nlohmann/json.hpp>

#include "api/json_backups.h"
#include "api/read_member.h"
#include "api/routes.h"
#include "engine/values/time_text.h"

/// Starting, listing, completing, cancelling and deleting backups: docs/http-api.md, "Backups".
namespace api {
namespace {

using engine::Refusal;
using engine::RefusalKind;

constexpr const char* kInvalidBody = "invalid request body";
constexpr size_t kTagsMax = 64;
constexpr uint64_t kLimitMax = 10000;

Refusal missing_field(std::string_view name) {
  return {RefusalKind::invalid, "missing_field", std::string(name) + " is required"};
}

Response start(const Call& call) {
  const InputJson body = call.body("StartBackup", kInvalidBody);
  engine::StartBackup request;
  if (const InputJson* tags = member(body, "tags")) {
    if (tags->size() > kTagsMax) {
      throw Refusal(RefusalKind::invalid, "invalid_body", kInvalidBody,
                    "member 'tags' must have at most 64 pairs");
    }
    request.tags = tags->get<engine::Tags>();
  }
  request.vm_name = text_member(body, "vm_name");
  request.repository_id = text_member(body, "repository_id");
  request.policy_id = text_member(body, "policy_id");
  if (request.vm_name.empty()) throw missing_field("vm_name");
  if (request.repository_id.empty()) throw missing_field("repository_id");
  const auto type = engine::from_text<engine::BackupType>(text_member(body, "backup_type"));
  if (!type || *type == engine::BackupType::differential) {
    throw Refusal(RefusalKind::invalid, "invalid_backup_type",
                  "backup_type must be 'full' or 'incremental'");
  }
  request.backup_type = *type;
  request.base = text_member(body, "base");
  if (!request.base.empty() && *type == engine::BackupType::full) {
    throw Refusal(RefusalKind::invalid, "base_without_incremental",
                  "base needs backup_type 'incremental'", "a full backup takes the whole disk");
  }
  return json_response(200, started_json(call.engine.start_backup(request), call.settings.pid));
}

Response list(const Call& call) {
  engine::BackupFilter filter;
  filter.vm_name = call.query("vm_name");
  filter.vm_context_id = call.query("vm_context_id");
  filter.repository_id = call.query("repository_id");
  if (const std::string status = call.query("status"); !status.empty()) {
    filter.status = engine::from_text<engine::ShownStatus>(status);
    if (!filter.status) throw Call::invalid_query("status");
  }
  if (const std::string type = call.query("backup_type"); !type.empty()) {
    filter.backup_type = engine::from_text<engine::BackupType>(type);
    if (!filter.backup_type) throw Call::invalid_query("backup_type");
  }
  filter.limit = call.query_number("limit", kLimitMax).value_or(filter.limit);
  filter.offset = call.query_number("offset", INT64_MAX).value_or(0);
  const engine::BackupList found = call.engine.list_backups(filter);
  Json backups = Json::array();
  for (const auto& backup : found.backups) backups.push_back(to_json(backup, call.settings.pid));
  return json_response(200, {{"backups", std::move(backups)}, {"total", found.total}});
}

Response get(const Call& call) {
  const auto backup = call.engine.backup(call.variable("backup_id"));
  return json_response(200, to_json(backup, call.settings.pid));
}

Response disks(const Call& call) {
  const std::string& id = call.variable("backup_id");
  Json disks = Json::array();
  for (const auto& disk : call.engine.backup_disks(id)) disks.push_back(to_json(disk));
  const size_t count = disks.size();
  return json_response(200, {{"backup_id", id}, {"disks", std::move(disks)}, {"count", count}});
}

// A number that no disk of any job can have is a disk that this job has not.
std::optional<uint32_t> disk_id_of(const std::string& backup_id, const InputJson& body) {
  const auto disk_id = integer_member(body, "disk_id");
  if (!disk_id) return std::nullopt;
  if (*disk_id < 0 || *disk_id > UINT32_MAX) {
    throw engine::refusals::job_not_found(backup_id,
                                          "the job has no disk " + std::to_string(*disk_id));
  }
  return static_cast<uint32_t>(*disk_id);
}

Response complete(const Call& call) {
  const std::string& id = call.variable("backup_id");
  const InputJson body = call.body("CompleteDisk", kInvalidBody);
  engine::CompleteDisk request{id, text_member(body, "change_id"), std::nullopt};
  if (request.change_id.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_change_id", "missing change_id",
                  "change_id field is required", "", id);
  }
  request.disk_id = disk_id_of(id, body);
  const engine::CompletedDisk done = call.engine.complete(request);
  return json_response(200,
                       {{"status", "completed"},
                        {"backup_id", id},
                        {"change_id", request.change_id},
                        {"disk_id", done.disk_index},
                        {"job_status", engine::is_active(done.job_state) ? "running" : "completed"},
                        {"disks_completed", done.disks_completed},
                        {"disks_total", done.disks_total},
                        {"message", "Backup completed successfully, change_id recorded"},
                        {"timestamp", call.timestamp()}});
}

Response cancel(const Call& call) {
  const std::string& id = call.variable("backup_id");
  std::string reason;
  if (!call.request.body.empty()) {
    reason = text_member(call.body("CancelBackup", kInvalidBody), "reason");
  }
  call.engine.cancel(id, reason);
  return json_response(200, {{"status", "cancelled"},
                             {"backup_id", id},
                             {"message", "backup cancelled"},
                             {"timestamp", call.timestamp()}});
}

Response remove(const Call& call) {
  const std::string& id = call.variable("backup_id");
  const std::string cascade = call.query("cascade");
  const auto done = call.engine.delete_backup(id, cascade == "true" || cascade == "1");
  return json_response(200, {{"message", "backup deleted successfully"},
                             {"backup_id", id},
                             {"deleted", done.deleted},
                             {"freed_bytes", done.freed_bytes}});
}

Response stats(const Call& call) {
  const std::string vm_name = call.query("vm_name"), repository = call.query("repository_id");
  if (vm_name.empty() || repository.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_field", "vm_name and repository_id are required");
  }
  const engine::BackupStats stats = call.engine.backup_stats(vm_name, repository);
  return json_response(200, {{"backup_count", stats.backup_count},
                             {"total_size_bytes", stats.total_size_bytes},
                             {"last_backup_at", engine::to_rfc3339(stats.last_backup_at)}});
}

Response chain_of(const Call& call, std::string vm_name) {
  engine::ChainQuery query;
  query.vm_name = std::move(vm_name);
  query.vm_context_id = call.query("vm_context_id");
  query.repository_id = call.query("repository_id");
  if (query.vm_name.empty() && query.vm_context_id.empty()) {
    throw Refusal(RefusalKind::invalid, "invalid_query", "vm_context_id or vm_name is required");
  }
  query.disk_id = static_cast<uint32_t>(call.query_number("disk_id", UINT32_MAX).value_or(0));
  if (const auto generation = call.query_number("generation", UINT32_MAX)) {
    query.generation = static_cast<uint32_t>(*generation);
  }
  return json_response(200, to_json(call.engine.chain(query), call.settings.pid));
}

Response chain(const Call& call) { return chain_of(call, call.query("vm_name")); }

Response chain_of_path(const Call& call) {
  const bool query_names_vm =
      !call.query("vm_name").empty() || !call.query("vm_context_id").empty();
  return chain_of(call, query_names_vm ? call.query("vm_name") : call.variable("vm_name"));
}

const std::vector<Parameter>& chain_parameters() {
  static const std::vector<Parameter> parameters = {
      {"vm_name", "string", "registered or inventory name"},
      {"vm_context_id", "string", ""},
      {"repository_id", "string", "that of the VM's newest point when left out"},
      {"disk_id", "integer", "index; 0 when left out"},
      {"generation", "integer", "the newest when left out"}};
  return parameters;
}

}  // namespace

const std::vector<Route>& backup_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/backups",
       .handler = start,
       .summary = "Start a backup of a VM",
       .answer = "Backup",
       .body = "StartBackup",
       .waits_for = WaitsFor::node},
      {.method = "GET",
       .pattern = "/api/v1/backups",
       .handler = list,
       .summary = "List backups, newest first",
       .answer = "BackupList",
       .query = {{"vm_name", "string", "registered or inventory name"},
                 {"vm_context_id", "string", ""},
                 {"repository_id", "string", ""},
                 {"status", "string:pending,running,completed,failed,cancelled", ""},
                 {"backup_type", "string:full,incremental,differential", ""},
                 {"limit", "integer", "100 when left out"},
                 {"offset", "integer", ""}},
       .failure = "failed to list backups"},
      {.method = "GET",
       .pattern = "/api/v1/backups/stats",
       .handler = stats,
       .summary = "Count a VM's completed backups in a repository",
       .answer = "BackupStats",
       .query = {{"vm_name", "string", "required"}, {"repository_id", "string", "required"}},
       .failure = "failed to get backup statistics"},
      {.method = "GET",
       .pattern = "/api/v1/backups/chain",
       .handler = chain,
       .summary = "The points of one disk, the full first",
       .answer = "Chain",
       .query = chain_parameters(),
       .failure = "failed to get backup chain"},
      {.method = "GET",
       .pattern = "/api/v1/backups/{vm_name}/chain",
       .handler = chain_of_path,
       .summary = "The same; the path names the VM unless the query does",
       .answer = "Chain",
       .query = chain_parameters(),
       .failure = "failed to get backup chain"},
      {.method = "GET",
       .pattern = "/api/v1/backups/{backup_id}",
       .handler = get,
       .summary = "One backup",
       .answer = "Backup",
       .failure = "failed to get backup"},
      {.method = "DELETE",
       .pattern = "/api/v1/backups/{backup_id}",
       .handler = remove,
       .summary = "Delete a backup's rows and files",
       .answer = "DeletedBackup",
       .query = {{"cascade", "boolean", "also every later backup that depends on it"}},
       .failure = "failed to delete backup",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/backups/{backup_id}/disks",
       .handler = disks,
       .summary = "The disks of a backup",
       .answer = "BackupDisks",
       .failure = "failed to get backup disks"},
      {.method = "POST",
       .pattern = "/api/v1/backups/{backup_id}/complete",
       .handler = complete,
       .summary = "The client has written all of a disk; 200 means durable",
       .answer = "CompletedDisk",
       .body = "CompleteDisk",
       .failure = "failed to complete backup",
       .failure_code = "seal_failed",
       .open_on_loopback = true,
       .unhurried = true,
       .waits_for = WaitsFor::storage},
      {.method = "POST",
       .pattern = "/api/v1/backups/{backup_id}/cancel",
       .handler = cancel,
       .summary = "End a running backup and remove what it wrote",
       .answer = "CancelledBackup",
       .body = "CancelBackup",
       .failure = "failed to cancel backup",
       .waits_for = WaitsFor::storage,
       .body_may_be_left_out = true},
  };
  return routes;
}

}  // namespace api
