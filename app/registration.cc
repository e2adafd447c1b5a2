// SPDX-License-Identifier: Apache-2.0
#include "app/registration.h"

namespace app {
namespace {

nlohmann::json members_again(const nlohmann::json& known,
                             std::initializer_list<const char*> names) {
  nlohmann::json again = nlohmann::json::object();
  for (const char* const name : names) {
    if (known.contains(name) && !known[name].is_null()) again[name] = known[name];
  }
  return again;
}

}  // namespace

nlohmann::json registered_again(const nlohmann::json& disk) {
  return members_again(
      disk, {"disk_id", "capacity_bytes", "unit_number", "label", "vmdk_path", "datastore"});
}

nlohmann::json context_again(const nlohmann::json& context) {
  return members_again(
      context, {"vm_path", "vcenter_host", "vmware_vm_id", "datacenter", "power_state", "os_type"});
}

}  // namespace app
