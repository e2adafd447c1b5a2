// SPDX-License-Identifier: Apache-2.0
#include <charconv>

#include "api/answers_backups.h"
#include "api/answers_setup.h"

namespace api {
namespace {

using engine::LastPoint;
using engine::ListedVm;
using engine::Vm;
using engine::VmDisk;

// Old readers know credentials by number only.
Json credential_id(const Vm& vm) {
  const std::string& ref = vm.credentials.ref;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(ref.data(), ref.data() + ref.size(), number);
  const bool is_number = error == std::errc() && end == ref.data() + ref.size();
  return is_number ? Json(number) : Json(nullptr);
}

const Object<engine::CredentialsRef>& credentials_object() {
  using C = engine::CredentialsRef;
  static const Object<C> object(
      "CredentialsInfo", "Where the credentials are, never what they are.",
      {{"kind", "string:reference,inline,none", "", &C::kind}, {"ref", "string", "", &C::ref}});
  return object;
}

/// What the old hub knew of a VM and varve does not.
template <typename Value>
std::function<Json(const Vm&)> always(Value value) {
  return [value](const Vm&) { return Json(value); };
}

std::vector<Field<Vm>> vm_fields() {
  return {
      {"context_id", "string", "", &Vm::context_id},
      {"vm_name", "string", "as registered", &Vm::vm_name},
      {"vmware_vm_id", "string", "", &Vm::vmware_vm_id},
      {"vm_path", "string", "inventory path", &Vm::vm_path},
      {"vcenter_host", "string", "", &Vm::vcenter_host},
      {"datacenter", "string", "", &Vm::datacenter},
      {"current_status", "string", "discovered, completed or failed", &Vm::current_status},
      {"current_job_id", "string|null", "null when idle", &Vm::current_job_id},
      {"total_jobs_run", "integer", "", &Vm::total_jobs_run},
      {"successful_jobs", "integer", "", &Vm::successful_jobs},
      {"failed_jobs", "integer", "", &Vm::failed_jobs},
      {"last_successful_job_id", "string|null", "", &Vm::last_successful_job_id},
      {"cpu_count", "integer", "0", always(0)},
      {"memory_mb", "integer", "0", always(0)},
      {"os_type", "string", "", &Vm::os_type},
      {"power_state", "string", "", &Vm::power_state},
      {"vm_tools_version", "string|null", "null", always(nullptr)},
      {"expected_interval_seconds", "integer", "how often a good backup is expected; 0: never",
       [](const Vm& vm) { return vm.expected_interval_seconds.value_or(0); }},
      {"last_good_at", "time|null",
       "when the newest backup completed of which nothing was found damaged", &Vm::last_good_at},
      {"last_verified_at", "time|null",
       "when the newest backup completed of which every image was found sound",
       &Vm::last_verified_at},
      {"overdue", "boolean", "no good backup is as new as expected", &Vm::overdue},
      {"secret_missing", "boolean",
       "credentials refer to a secret that varve's configuration does not have",
       &Vm::secret_missing},
      {"created_at", "time", "", &Vm::created_at},
      {"updated_at", "time", "", &Vm::updated_at},
      {"first_job_at", "time|null", "", &Vm::first_job_at},
      {"last_job_at", "time|null", "", &Vm::last_job_at},
      {"last_status_change", "time|null", "", &Vm::last_status_change},
      {"auto_added", "boolean", "false", always(false)},
      {"scheduler_enabled", "boolean", "false", always(false)},
      {"next_scheduled_at", "time|null", "null", always(nullptr)},
      {"last_scheduled_job_id", "string|null", "null", always(nullptr)},
      {"ossea_config_id", "integer|null", "null", always(nullptr)},
      {"last_operation_summary", "object|null", "null", always(nullptr)},
      {"credential_id", "integer|null", "the number if the reference is one", credential_id},
      {"credentials", "CredentialsInfo", "",
       [](const Vm& vm) { return credentials_object().json(vm.credentials); }},
  };
}

const Object<Vm>& context_object() {
  static const Object<Vm> object("VmContext", "A VM.", vm_fields());
  return object;
}

const Object<LastPoint>& last_point_object() {
  using P = LastPoint;
  static const Object<P> object(
      "LastPoint", "The newest completed backup of a VM.",
      {{"backup_id", "string", "", &P::job_id},
       {"repository_id", "string", "", &P::repository_id},
       {"backup_type", "string:full,incremental,differential", "as asked for", &P::type},
       {"completed_at", "time", "", &P::completed_at},
       {"allocated_bytes", "integer", "space of its files", &P::allocated_bytes},
       {"chain_length", "integer", "points up to it, the full included", &P::chain_length},
       {"verified_at", "time|null", "of the disk that was proven first; null: not all were",
        &P::verified_at},
       {"verification", "string:sound,damaged,without_manifest?", "the worst of its disks",
        &P::verification}});
  return object;
}

const Object<VmDisk>& disk_object() {
  static const Object<VmDisk> object(
      "VmDisk", "A VM's disk.",
      {{"id", "integer", "", &VmDisk::id},
       {"vm_context_id", "string", "", &VmDisk::context_id},
       {"disk_id", "string", "disk- and the VMware key",
        [](const VmDisk& disk) { return engine::vmware_disk_id(disk.key); }},
       {"disk_index", "integer", "assigned once, never reused", &VmDisk::index},
       {"vmware_disk_key", "integer", "", &VmDisk::key},
       {"vmdk_path", "string", "", &VmDisk::vmdk_path},
       {"size_gb", "integer", "GiB, rounded up",
        [](const VmDisk& disk) { return engine::size_gb(disk.capacity_bytes); }},
       {"capacity_bytes", "integer", "exact", &VmDisk::capacity_bytes},
       {"datastore", "string", "", &VmDisk::datastore},
       {"unit_number", "integer|null", "", &VmDisk::unit_number},
       {"label", "string", "", &VmDisk::label},
       {"disk_change_id", "string", "newest completed", &VmDisk::change_id},
       {"removed", "boolean", "missing in the last registration; not backed up", &VmDisk::removed},
       {"created_at", "time", "", &VmDisk::created_at},
       {"updated_at", "time", "", &VmDisk::updated_at}});
  return object;
}

}  // namespace

const Object<ListedVm>& listed_vm_object() {
  static const Object<ListedVm> object("ListedVmContext", "A VM in a list.", [] {
    std::vector<Field<ListedVm>> fields;
    for (const auto& [name, type, about, value] : vm_fields()) {
      fields.push_back({name, type, about, [value](const ListedVm& v) { return value(v.vm); }});
    }
    fields.push_back(
        {"groups", "[object]", "empty", [](const ListedVm&) { return Json::array(); }});
    fields.push_back({"group_count", "integer", "0", [](const ListedVm&) { return 0; }});
    fields.push_back({"disk_count", "integer", "that are backed up", &ListedVm::disk_count});
    fields.push_back({"capacity_bytes", "integer", "of these", &ListedVm::capacity_bytes});
    fields.push_back({"damaged_points", "integer", "images damaged at their last verification",
                      &ListedVm::damaged_points});
    fields.push_back({"last_point", "LastPoint|null", "null: none yet", [](const ListedVm& v) {
                        return v.last_point ? last_point_object().json(*v.last_point) : Json();
                      }});
    return fields;
  }());
  return object;
}

const Object<ShownVm>& vm_object() {
  using V = ShownVm;
  static const Object<V> object(
      "VmContextDetails", "",
      {{"context", "VmContext", "", [](const V& v) { return context_object().json(v.view.vm); }},
       {"current_job", "Backup?", "",
        [](const V& v) {
          const auto& job = v.view.current_job;
          return job ? backup_object().json({*job, v.pid}) : Json(nullptr);
        }},
       {"job_history", "[Backup]", "the last 10, newest first",
        [](const V& v) { return backup_list(v.view.job_history, v.pid); }},
       {"disks", "[VmDisk]", "by index",
        [](const V& v) { return disk_object().list(v.view.vm.disks); }},
       {"cbt_history", "[object]", "empty", [](const V&) { return Json::array(); }},
       {"last_operation", "object?", "left out", [](const V&) { return Json(nullptr); }}});
  return object;
}

const Object<VmDisk>& short_disk_object() {
  static const Object<VmDisk> object(
      "ShortVmDisk", "",
      {{"disk_id", "string", "disk- and the VMware key",
        [](const VmDisk& disk) { return engine::vmware_disk_id(disk.key); }},
       {"size_gb", "integer", "GiB, rounded up",
        [](const VmDisk& disk) { return engine::size_gb(disk.capacity_bytes); }},
       {"disk_index", "integer", "", &VmDisk::index},
       {"vmware_disk_key", "integer", "", &VmDisk::key},
       {"capacity_bytes", "integer", "exact", &VmDisk::capacity_bytes}});
  return object;
}

std::vector<Schema> vm_object_schemas() {
  return schemas_of(credentials_object(), context_object(), last_point_object(), listed_vm_object(),
                    disk_object(), vm_object(), short_disk_object());
}

}  // namespace api
