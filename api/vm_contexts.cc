// SPDX-License-Identifier: Apache-2.0
#include "api/answers_setup.h"
#include "api/paging.h"
#include "api/read_setup.h"
#include "api/routes.h"
#include "api/schemas.h"

/// VMs and their disks: docs/http-api.md, "VM contexts".
namespace api {
namespace {

template <typename T>
using Values = std::vector<T>;

const Object<Page<engine::ListedVm>>& vms_object() {
  using Vms = Page<engine::ListedVm>;
  static const Object<Vms> object(
      "VmContextList", "",
      {{"vm_contexts", "[ListedVmContext]", "",
        [](const Vms& vms) { return listed_vm_object().list(vms.shown); }},
       {"count", "integer", "of this page", [](const Vms& vms) { return vms.shown.size(); }},
       {"total", "integer", "matches before limit and offset", &Vms::total}});
  return object;
}

Response list_vms(const Call& call) {
  using Listed = engine::ListedVm;
  std::vector<Listed> found = call.engine.vms();
  keep_matching(call, "vm_name", found, [](const Listed& one) { return one.vm.vm_name; });
  keep_matching(call, "vcenter_host", found, [](const Listed& one) { return one.vm.vcenter_host; });
  keep_matching(call, "current_status", found,
                [](const Listed& one) { return one.vm.current_status; });
  return json_response(200, vms_object().json(page_of(call, std::move(found))));
}

Response put_vm(const Call& call) {
  const InputJson body = call.body("PutVmContext", "invalid request body");
  engine::PutVmContext request = put_vm_context(call.variable("vm_name"), body);
  request.move = call.query("move") == "true";
  const engine::PutVmResult done = call.engine.put_vm(request);
  const Json answer = vm_object().json({done.vm, call.settings.pid});
  if (!done.created) return json_response(200, answer);
  return created_response(201, answer, "vm-contexts", request.vm_name);
}

Response get_vm(const Call& call) {
  const auto vm = call.engine.vm(call.variable("vm_name"));
  return json_response(200, vm_object().json({vm, call.settings.pid}));
}

Response get_by_id(const Call& call) {
  const auto vm = call.engine.vm_by_context_id(call.variable("context_id"));
  return json_response(200, vm_object().json({vm, call.settings.pid}));
}

const Object<Values<engine::VmDisk>>& vm_disks_object() {
  static const Object<Values<engine::VmDisk>> object(
      "VmDisks", "",
      {{"disks", "[ShortVmDisk]", "by index",
        [](const auto& disks) { return short_disk_object().list(disks); }},
       {"count", "integer", "", &Values<engine::VmDisk>::size}});
  return object;
}

Response list_vm_disks(const Call& call) {
  return json_response(200, vm_disks_object().json(call.engine.vm_disks(call.variable("vm"))));
}

struct DeletedVm {
  std::string context_id;
};

const Object<DeletedVm>& deleted_vm_object() {
  static const Object<DeletedVm> object(
      "VmContextDeleted", "",
      {{"message", "string", "", [](const DeletedVm&) { return "VM context deleted"; }},
       {"context_id", "string", "", &DeletedVm::context_id}});
  return object;
}

Response remove_vm(const Call& call) {
  return json_response(200,
                       deleted_vm_object().json({call.engine.delete_vm(call.variable("vm_name"))}));
}

}  // namespace

std::vector<Schema> vm_context_answers() {
  std::vector<Schema> schemas = schemas_of(vms_object(), vm_disks_object(), deleted_vm_object());
  for (Schema& schema : vm_object_schemas()) schemas.push_back(std::move(schema));
  return schemas;
}

const std::vector<Route>& vm_context_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts",
       .operation = "listVms",
       .scope = Scope::read,
       .handler = list_vms,
       .summary = "List VMs",
       .answer = "VmContextList",
       .query = {{"vm_name", "string", "as registered"},
                 {"vcenter_host", "string", ""},
                 {"current_status", "string:discovered,completed,failed", ""},
                 kLimit,
                 kOffset},
       .failure = "Failed to retrieve VM contexts"},
      {.method = "PUT",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .operation = "putVm",
       .scope = Scope::admin,
       .handler = put_vm,
       .summary = "Register a VM and its disks (201), or replace it (200)",
       .status = 201,
       .answer = "VmContextDetails",
       .body = "PutVmContext",
       .query = {{"move", "boolean", "true allows another vcenter_host"}},
       .failure = "failed to store VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .operation = "getVm",
       .scope = Scope::read,
       .handler = get_vm,
       .summary = "One VM with its disks and last backups",
       .answer = "VmContextDetails",
       .failure = "Failed to retrieve VM context"},
      {.method = "DELETE",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .operation = "deleteVm",
       .scope = Scope::admin,
       .handler = remove_vm,
       .summary = "Forget a VM that has no backups",
       .answer = "VmContextDeleted",
       .failure = "failed to delete VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/by-id/{context_id}",
       .operation = "getVmById",
       .scope = Scope::read,
       .handler = get_by_id,
       .summary = "One VM by its context id",
       .answer = "VmContextDetails",
       .failure = "Failed to retrieve VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/{vm}/disks",
       .operation = "listVmDisks",
       .scope = Scope::read,
       .handler = list_vm_disks,
       .summary = "The disks of a VM, by context id or name",
       .answer = "VmDisks",
       .failure = "failed to get VM disks"},
  };
  return routes;
}

}  // namespace api
