#include <charconv>
#include <nlohmann/json.hpp>

#include "api/json_backups.h"
#include "api/json_setup.h"
#include "api/read_member.h"
#include "engine/values/refusal.h"
#include "engine/values/registration.h"
#include "engine/values/time_text.h"

namespace api {
namespace {

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json time_or_null(const std::optional<engine::Time>& time) {
  return time ? Json(engine::to_rfc3339(*time)) : Json(nullptr);
}

// Old readers know credentials by number only.
Json credential_id(const engine::CredentialsRef& credentials) {
  const std::string& ref = credentials.ref;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(ref.data(), ref.data() + ref.size(), number);
  const bool is_number = error == std::errc() && end == ref.data() + ref.size();
  return is_number ? Json(number) : Json(nullptr);
}

engine::CredentialsChange credentials_of(const InputJson& body) {
  using Kind = engine::CredentialsChange::Kind;
  engine::CredentialsChange change;
  const auto found = body.find("credentials");
  if (found == body.end()) return change;
  if (found->is_null()) {
    change.kind = Kind::remove;
    return change;
  }
  change.reference = text_member(*found, "ref");
  change.username = text_member(*found, "username");
  change.password = text_member(*found, "password");
  const bool inline_secret = !change.username.empty() && !change.password.empty();
  const bool nothing_else = change.username.empty() && change.password.empty();
  if (change.reference.empty() ? !inline_secret : !nothing_else) {
    throw engine::refusals::vm_context_invalid(
        "credentials must have either ref or username and password");
  }
  change.kind = inline_secret ? Kind::inline_secret : Kind::reference;
  return change;
}

engine::NewVmDisk disk_of(const InputJson& body) {
  engine::NewVmDisk disk;
  disk.disk_id = text_member(body, "disk_id");
  disk.capacity_bytes = count_member(body, "capacity_bytes");
  disk.unit_number = integer_member(body, "unit_number");
  disk.label = text_member(body, "label");
  disk.vmdk_path = text_member(body, "vmdk_path");
  disk.datastore = text_member(body, "datastore");
  return disk;
}

}  // namespace

Json to_json(const engine::Vm& vm) {
  return {
      {"context_id", vm.context_id},
      {"vm_name", vm.vm_name},
      {"vmware_vm_id", vm.vmware_vm_id},
      {"vm_path", vm.vm_path},
      {"vcenter_host", vm.vcenter_host},
      {"datacenter", vm.datacenter},
      {"current_status", vm.current_status},
      {"current_job_id", text_or_null(vm.current_job_id)},
      {"total_jobs_run", vm.total_jobs_run},
      {"successful_jobs", vm.successful_jobs},
      {"failed_jobs", vm.failed_jobs},
      {"last_successful_job_id", text_or_null(vm.last_successful_job_id)},
      {"cpu_count", 0},
      {"memory_mb", 0},
      {"os_type", vm.os_type},
      {"power_state", vm.power_state},
      {"vm_tools_version", nullptr},
      {"created_at", engine::to_rfc3339(vm.created_at)},
      {"updated_at", engine::to_rfc3339(vm.updated_at)},
      {"first_job_at", time_or_null(vm.first_job_at)},
      {"last_job_at", time_or_null(vm.last_job_at)},
      {"last_status_change", time_or_null(vm.last_status_change)},
      {"auto_added", false},
      {"scheduler_enabled", false},
      {"next_scheduled_at", nullptr},
      {"last_scheduled_job_id", nullptr},
      {"ossea_config_id", nullptr},
      {"last_operation_summary", nullptr},
      {"credential_id", credential_id(vm.credentials)},
      {"credentials", {{"kind", to_text(vm.credentials.kind)}, {"ref", vm.credentials.ref}}},
  };
}

Json listed_json(const engine::Vm& vm) {
  Json json = to_json(vm);
  json["groups"] = Json::array();
  json["group_count"] = 0;
  return json;
}

Json to_json(const engine::VmDisk& disk) {
  return {
      {"id", disk.id},
      {"vm_context_id", disk.context_id},
      {"disk_id", engine::vmware_disk_id(disk.key)},
      {"disk_index", disk.index},
      {"vmware_disk_key", disk.key},
      {"vmdk_path", disk.vmdk_path},
      {"size_gb", engine::size_gb(disk.capacity_bytes)},
      {"capacity_bytes", disk.capacity_bytes},
      {"datastore", disk.datastore},
      {"unit_number", disk.unit_number ? Json(*disk.unit_number) : Json(nullptr)},
      {"label", disk.label},
      {"disk_change_id", disk.change_id},
      {"removed", disk.removed},
      {"created_at", engine::to_rfc3339(disk.created_at)},
      {"updated_at", engine::to_rfc3339(disk.updated_at)},
  };
}

Json short_json(const engine::VmDisk& disk) {
  return {
      {"disk_id", engine::vmware_disk_id(disk.key)},
      {"size_gb", engine::size_gb(disk.capacity_bytes)},
      {"disk_index", disk.index},
      {"vmware_disk_key", disk.key},
      {"capacity_bytes", disk.capacity_bytes},
  };
}

Json to_json(const engine::VmView& view, int64_t pid) {
  Json json = {{"context", to_json(view.vm)}};
  if (view.current_job) json["current_job"] = to_json(*view.current_job, pid);
  json["job_history"] = Json::array();
  for (const auto& job : view.job_history) json["job_history"].push_back(to_json(job, pid));
  json["disks"] = Json::array();
  for (const auto& disk : view.vm.disks) json["disks"].push_back(to_json(disk));
  json["cbt_history"] = Json::array();
  return json;
}

engine::PutVmContext put_vm_context(const std::string& vm_name, const InputJson& body) {
  engine::PutVmContext request;
  request.vm_name = vm_name;
  request.vm_path = text_member(body, "vm_path");
  request.vcenter_host = text_member(body, "vcenter_host");
  request.credentials = credentials_of(body);
  if (const InputJson* disks = member(body, "disks")) {
    for (const InputJson& disk : *disks) request.disks.push_back(disk_of(disk));
  }
  request.vmware_vm_id = text_member(body, "vmware_vm_id");
  request.datacenter = text_member(body, "datacenter");
  request.power_state = text_member(body, "power_state");
  request.os_type = text_member(body, "os_type");
  check_registration(request);
  return request;
}

}  // namespace api
