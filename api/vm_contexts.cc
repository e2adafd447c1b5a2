#include <nlohmann/json.hpp>

#include "api/json_setup.h"
#include "api/routes.h"

/// VMs and their disks: docs/http-api.md, "VM contexts".
namespace api {
namespace {

Response list(const Call& call) {
  Json vms = Json::array();
  for (const auto& vm : call.engine.vms()) vms.push_back(listed_json(vm));
  const size_t count = vms.size();
  return json_response(200, {{"vm_contexts", std::move(vms)}, {"count", count}});
}

Response put(const Call& call) {
  const InputJson body = call.body("PutVmContext", "invalid request body");
  engine::PutVmContext request = put_vm_context(call.variable("vm_name"), body);
  request.move = call.query("move") == "true";
  const engine::PutVmResult done = call.engine.put_vm(request);
  return json_response(done.created ? 201 : 200, to_json(done.vm, call.settings.pid));
}

Response get(const Call& call) {
  const auto vm = call.engine.vm(call.variable("vm_name"));
  return json_response(200, to_json(vm, call.settings.pid));
}

Response get_by_id(const Call& call) {
  const auto vm = call.engine.vm_by_context_id(call.variable("context_id"));
  return json_response(200, to_json(vm, call.settings.pid));
}

Response disks(const Call& call) {
  Json disks = Json::array();
  for (const auto& disk : call.engine.vm_disks(call.variable("vm"))) {
    disks.push_back(short_json(disk));
  }
  const size_t count = disks.size();
  return json_response(200, {{"disks", std::move(disks)}, {"count", count}});
}

Response remove(const Call& call) {
  const std::string context_id = call.engine.delete_vm(call.variable("vm_name"));
  return json_response(200, {{"message", "VM context deleted"}, {"context_id", context_id}});
}

}  // namespace

const std::vector<Route>& vm_context_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts",
       .handler = list,
       .summary = "List VMs",
       .answer = "VmContextList",
       .failure = "Failed to retrieve VM contexts"},
      {.method = "PUT",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .handler = put,
       .summary = "Register a VM and its disks (201), or replace it (200)",
       .status = 201,
       .answer = "VmContextDetails",
       .body = "PutVmContext",
       .query = {{"move", "boolean", "true allows another vcenter_host"}},
       .failure = "failed to store VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .handler = get,
       .summary = "One VM with its disks and last backups",
       .answer = "VmContextDetails",
       .failure = "Failed to retrieve VM context"},
      {.method = "DELETE",
       .pattern = "/api/v1/vm-contexts/{vm_name}",
       .handler = remove,
       .summary = "Forget a VM that has no backups",
       .answer = "VmContextDeleted",
       .failure = "failed to delete VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/by-id/{context_id}",
       .handler = get_by_id,
       .summary = "One VM by its context id",
       .answer = "VmContextDetails",
       .failure = "Failed to retrieve VM context"},
      {.method = "GET",
       .pattern = "/api/v1/vm-contexts/{vm}/disks",
       .handler = disks,
       .summary = "The disks of a VM, by context id or name",
       .answer = "VmDisks",
       .failure = "failed to get VM disks"},
  };
  return routes;
}

}  // namespace api
