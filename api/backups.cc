// SPDX-License-Identifier: Apache-2.0
#include "api/answers_backups.h"
#include "api/answers_signals.h"
#include "api/read_member.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Starting, listing, completing, cancelling and deleting backups: docs/http-api.md, "Backups".
namespace api {
namespace {

using engine::Refusal;
using engine::RefusalKind;

constexpr size_t kTagsMax = 64;
constexpr uint64_t kBackupsMax = 10000;
constexpr uint64_t kBackupDaysMax = 3660;

Refusal missing_field(std::string_view name) {
  return {RefusalKind::invalid, "missing_field", std::string(name) + " is required"};
}

Response started(const Call& call, const engine::StartBackup& request) {
  const engine::BackupView backup = call.engine.start_backup(request);
  return created_response(200, backup_object().json({backup, call.settings.pid, true}), "backups",
                          backup.job.id);
}

Response start(const Call& call) {
  const InputJson body = call.body("StartBackup", kInvalidBody);
  engine::StartBackup request;
  request.resume = text_member(body, "resume");
  if (!request.resume.empty()) {
    request.base = text_member(body, "base");
    if (body.size() != (body.contains("base") ? 2 : 1)) {
      throw Refusal(RefusalKind::invalid, "resume_with_others",
                    "resume goes with base and no other member",
                    "the interrupted backup says the others");
    }
    return started(call, request);
  }
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
  if (const std::string word = text_member(body, "client"); !word.empty()) {
    const auto client = engine::from_text<engine::BackupClient>(word);
    if (!client) {
      throw Refusal(RefusalKind::invalid, "invalid_client", "client must be 'node' or 'external'");
    }
    request.client = *client;
  }
  request.base = text_member(body, "base");
  request.into_chain = bool_member(body, "into_chain").value_or(false);
  if (!request.base.empty() && *type == engine::BackupType::full && !request.into_chain) {
    throw Refusal(RefusalKind::invalid, "base_without_incremental",
                  "base needs backup_type 'incremental'", "a full backup takes the whole disk");
  }
  if (request.into_chain && *type != engine::BackupType::full) {
    throw Refusal(RefusalKind::invalid, "into_chain_without_full",
                  "into_chain needs backup_type 'full'",
                  "an incremental backup goes into the chain by itself");
  }
  request.keep_partial = bool_member(body, "keep_partial").value_or(false);
  return started(call, request);
}

Response list_backups(const Call& call) {
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
  filter.limit = call.query_number("limit", kBackupsMax).value_or(filter.limit);
  filter.offset = call.query_number("offset", INT64_MAX).value_or(0);
  const engine::BackupList found = call.engine.list_backups(filter);
  return json_response(200, backup_list_object().json({found, call.settings.pid}));
}

Response get_backup(const Call& call) {
  const auto backup = call.engine.backup(call.variable("backup_id"));
  return json_response(200, backup_object().json({backup, call.settings.pid}));
}

struct Disks {
  std::string backup_id;
  std::vector<engine::BackupDiskView> disks;
};

const Object<Disks>& backup_disks_object() {
  static const Object<Disks> object(
      "BackupDisks", "The disks of a backup, by index.",
      {{"backup_id", "string", "", &Disks::backup_id},
       {"disks", "[BackupDisk]", "",
        [](const Disks& answer) { return backup_disk_object().list(answer.disks); }},
       {"count", "integer", "", [](const Disks& answer) { return answer.disks.size(); }}});
  return object;
}

Response list_backup_disks(const Call& call) {
  const std::string& id = call.variable("backup_id");
  return json_response(200, backup_disks_object().json({id, call.engine.backup_disks(id)}));
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

struct Completed {
  const engine::CompleteDisk& request;
  engine::CompletedDisk done;
  std::string timestamp;
};

const Object<Completed>& completed_object() {
  using C = Completed;
  static const Object<C> object(
      "CompletedDisk", "The disk is durable; after the last one the whole backup is.",
      {{"status", "string:completed", "", [](const C&) { return "completed"; }},
       {"backup_id", "string", "", [](const C& c) { return c.request.backup_id; }},
       {"change_id", "string", "", [](const C& c) { return c.request.change_id; }},
       {"disk_id", "integer", "index", [](const C& c) { return c.done.disk_index; }},
       {"job_status", "string:running,completed", "",
        [](const C& c) { return is_active(c.done.job_state) ? "running" : "completed"; }},
       {"disks_completed", "integer", "", [](const C& c) { return c.done.disks_completed; }},
       {"disks_total", "integer", "", [](const C& c) { return c.done.disks_total; }},
       {"message", "string", "",
        [](const C&) { return "Backup completed successfully, change_id recorded"; }},
       {"timestamp", "time", "", &C::timestamp}});
  return object;
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
  return json_response(200, completed_object().json({request, done, call.timestamp()}));
}

struct Cancelled {
  std::string backup_id, timestamp;
};

const Object<Cancelled>& cancelled_object() {
  using C = Cancelled;
  static const Object<C> object(
      "CancelledBackup", "Everything of the backup is removed.",
      {{"status", "string:cancelled", "", [](const C&) { return "cancelled"; }},
       {"backup_id", "string", "", &C::backup_id},
       {"message", "string", "", [](const C&) { return "backup cancelled"; }},
       {"timestamp", "time", "", &C::timestamp}});
  return object;
}

Response cancel(const Call& call) {
  const std::string& id = call.variable("backup_id");
  std::string reason;
  if (!call.request.body.empty()) {
    reason = text_member(call.body("CancelBackup", kInvalidBody), "reason");
  }
  call.engine.cancel(id, reason);
  return json_response(200, cancelled_object().json({id, call.timestamp()}));
}

struct Deleted {
  std::string backup_id;
  engine::DeletedBackup done;
};

const Object<Deleted>& deleted_object() {
  using D = Deleted;
  static const Object<D> object(
      "DeletedBackup", "Rows and files are gone.",
      {{"message", "string", "", [](const D&) { return "backup deleted successfully"; }},
       {"backup_id", "string", "", &D::backup_id},
       {"deleted", "[string]", "in the order of deletion",
        [](const D& d) { return d.done.deleted; }},
       {"freed_bytes", "integer", "", [](const D& d) { return d.done.freed_bytes; }}});
  return object;
}

Response remove_backup(const Call& call) {
  const std::string& id = call.variable("backup_id");
  const std::string cascade = call.query("cascade");
  const auto done = call.engine.delete_backup(id, cascade == "true" || cascade == "1");
  return json_response(200, deleted_object().json({id, done}));
}

const Object<engine::BackupStats>& stats_object() {
  using S = engine::BackupStats;
  static const Object<S> object(
      "BackupStats", "Completed backups of a VM in a repository.",
      {{"backup_count", "integer", "", &S::backup_count},
       {"total_size_bytes", "integer", "what clients sent: sum of bytes_transferred",
        &S::total_size_bytes},
       {"last_backup_at", "string", "time; empty when there is none",
        [](const S& s) { return engine::to_rfc3339(s.last_backup_at); }}});
  return object;
}

Response stats(const Call& call) {
  const std::string vm_name = call.query("vm_name"), repository = call.query("repository_id");
  if (vm_name.empty() || repository.empty()) {
    throw Refusal(RefusalKind::invalid, "missing_field", "vm_name and repository_id are required");
  }
  return json_response(200, stats_object().json(call.engine.backup_stats(vm_name, repository)));
}

std::string date_of(const engine::BackupDay& day) {
  return engine::to_rfc3339(day.date).substr(0, std::string_view("2025-10-08").size());
}

const Object<engine::BackupDay>& backup_day_object() {
  using D = engine::BackupDay;
  static const Object<D> object(
      "BackupDay", "The completed backups that began on one day.",
      {{"date", "string", "of UTC, as 2025-10-08", date_of},
       {"backup_count", "integer", "", &D::backup_count},
       {"bytes_received", "integer", "payload of WRITE", &D::bytes_received},
       {"bytes_stored", "integer", "allocated in the files", &D::bytes_stored},
       {"seconds", "integer", "that they took, one after the other", &D::seconds}});
  return object;
}

const Object<std::vector<engine::BackupDay>>& backup_days_object() {
  using Days = std::vector<engine::BackupDay>;
  static const Object<Days> object(
      "BackupDays", "Completed backups day by day, oldest first; days without one are left out.",
      {{"days", "[BackupDay]", "",
        [](const Days& days) { return backup_day_object().list(days); }}});
  return object;
}

Response by_day(const Call& call) {
  engine::BackupDaysQuery query;
  query.vm_name = call.query("vm_name");
  query.repository_id = call.query("repository_id");
  query.days =
      static_cast<uint32_t>(call.query_number("days", kBackupDaysMax).value_or(query.days));
  if (query.days == 0) throw Call::invalid_query("days");
  return json_response(200, backup_days_object().json(call.engine.backup_days(query)));
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
  return json_response(200, chain_object().json({call.engine.chain(query), call.settings.pid}));
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

std::vector<Schema> backup_answers() {
  std::vector<Schema> schemas = schemas_of(
      backup_list_object(), backup_disks_object(), completed_object(), cancelled_object(),
      deleted_object(), stats_object(), backup_day_object(), backup_days_object());
  for (const auto part : {backup_schemas, signals_schemas, chain_schemas}) {
    for (Schema& schema : part()) schemas.push_back(std::move(schema));
  }
  return schemas;
}

const std::vector<Route>& backup_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/backups",
       .operation = "startBackup",
       .scope = Scope::backup,
       .handler = start,
       .summary = "Start a backup of a VM",
       .answer = "Backup",
       .body = "StartBackup",
       .waits_for = WaitsFor::node},
      {.method = "GET",
       .pattern = "/api/v1/backups",
       .operation = "listBackups",
       .scope = Scope::read,
       .handler = list_backups,
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
       .operation = "getBackupStats",
       .scope = Scope::read,
       .handler = stats,
       .summary = "Count a VM's completed backups in a repository",
       .answer = "BackupStats",
       .query = {{"vm_name", "string", "required"}, {"repository_id", "string", "required"}},
       .failure = "failed to get backup statistics"},
      {.method = "GET",
       .pattern = "/api/v1/backups/by-day",
       .operation = "listBackupDays",
       .scope = Scope::read,
       .handler = by_day,
       .summary = "What the completed backups of each day brought",
       .answer = "BackupDays",
       .query = {{"vm_name", "string", "as registered"},
                 {"repository_id", "string", ""},
                 {"days", "integer", "the last ones, today among them; 30 when left out"}},
       .failure = "failed to sum up the backups"},
      {.method = "GET",
       .pattern = "/api/v1/backups/chain",
       .operation = "getChain",
       .scope = Scope::read,
       .handler = chain,
       .summary = "The points of one disk, the full first",
       .answer = "Chain",
       .query = chain_parameters(),
       .failure = "failed to get backup chain"},
      {.method = "GET",
       .pattern = "/api/v1/backups/{vm_name}/chain",
       .operation = "getChainOfVm",
       .scope = Scope::read,
       .handler = chain_of_path,
       .summary = "The same; the path names the VM unless the query does",
       .answer = "Chain",
       .query = chain_parameters(),
       .failure = "failed to get backup chain"},
      {.method = "GET",
       .pattern = "/api/v1/backups/{backup_id}",
       .operation = "getBackup",
       .scope = Scope::read,
       .handler = get_backup,
       .summary = "One backup",
       .answer = "Backup",
       .failure = "failed to get backup"},
      {.method = "DELETE",
       .pattern = "/api/v1/backups/{backup_id}",
       .operation = "deleteBackup",
       .scope = Scope::admin,
       .handler = remove_backup,
       .summary = "Delete a backup's rows and files",
       .answer = "DeletedBackup",
       .query = {{"cascade", "boolean", "also every later backup that depends on it"}},
       .failure = "failed to delete backup",
       .waits_for = WaitsFor::storage},
      {.method = "GET",
       .pattern = "/api/v1/backups/{backup_id}/disks",
       .operation = "listBackupDisks",
       .scope = Scope::read,
       .handler = list_backup_disks,
       .summary = "The disks of a backup",
       .answer = "BackupDisks",
       .failure = "failed to get backup disks"},
      {.method = "POST",
       .pattern = "/api/v1/backups/{backup_id}/complete",
       .operation = "completeDisk",
       .scope = Scope::backup,
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
       .operation = "cancelBackup",
       .scope = Scope::backup,
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
