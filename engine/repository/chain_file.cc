// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/chain_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kVmFormat = 1;

Json chain_members(const Chain& chain) {
  Json ids = Json::array();
  uint64_t total_bytes = 0;
  for (const Point& point : chain.points) {
    ids.push_back(point.image_id);
    total_bytes += point.capacity_bytes;
  }
  Json object;
  object["chain_id"] = shown_chain_name(chain.context_id, chain.disk_index);
  object["vm_context_id"] = chain.context_id;
  object["vm_name"] = chain.vm_name;
  object["repository_id"] = chain.repository_id;
  object["disk_id"] = chain.disk_index;
  object["generation"] = chain.generation;
  object["full_backup_id"] = chain.points.front().image_id;
  object["latest_backup_id"] = chain.points.back().image_id;
  object["backup_ids"] = std::move(ids);
  object["total_backups"] = chain.points.size();
  object["total_size_bytes"] = total_bytes;
  object["created_at"] = to_rfc3339(chain.created_at);
  object["updated_at"] = to_rfc3339(chain.updated_at);
  return object;
}

VmDisk decode_vm_disk(const Json& object) {
  const std::optional<uint32_t> key = vmware_disk_key(object.at("disk_id").get<std::string>());
  if (!key) throw FileTextError("vm.json: disk_id is not disk-<key>");
  VmDisk disk;
  disk.key = *key;
  disk.index = object.at("disk_index").get<uint32_t>();
  disk.capacity_bytes = object.at("capacity_bytes").get<uint64_t>();
  disk.label = object.at("label").get<std::string>();
  disk.removed = object.at("removed").get<bool>();
  return disk;
}

}  // namespace

std::string encode_chain_file(const std::vector<Chain>& generations) {
  Json object = chain_members(generations.back());
  Json older = Json::array();
  for (size_t i = 0; i + 1 < generations.size(); ++i)
    older.push_back(chain_members(generations[i]));
  object["older_generations"] = std::move(older);
  return object.dump() + '\n';
}

std::string encode_vm_file(const Vm& vm) {
  Json disks = Json::array();
  for (const VmDisk& disk : vm.disks) {
    Json object;
    object["disk_id"] = vmware_disk_id(disk.key);
    object["vmware_disk_key"] = disk.key;
    object["disk_index"] = disk.index;
    object["capacity_bytes"] = disk.capacity_bytes;
    object["label"] = disk.label;
    object["removed"] = disk.removed;
    disks.push_back(std::move(object));
  }
  Json object;
  object["format"] = kVmFormat;
  object["vm_context_id"] = vm.context_id;
  object["vm_name"] = vm.vm_name;
  object["vm_path"] = vm.vm_path;
  object["vcenter_host"] = vm.vcenter_host;
  object["vmware_vm_id"] = vm.vmware_vm_id;
  object["datacenter"] = vm.datacenter;
  object["created_at"] = to_rfc3339(vm.created_at);
  object["disks"] = std::move(disks);
  return object.dump() + '\n';
}

Vm decode_vm_file(std::string_view text) {
  try {
    const Json object = Json::parse(text);
    if (object.at("format").get<uint32_t>() != kVmFormat) {
      throw FileTextError("vm.json: its format is not known");
    }
    Vm vm;
    vm.context_id = object.at("vm_context_id").get<std::string>();
    vm.safe_name = safe_name_of_context(vm.context_id);
    if (vm.safe_name.empty() || !is_own_name(vm.context_id, kContextPrefix)) {
      throw FileTextError("vm.json: vm_context_id is not a name that varve makes");
    }
    vm.vm_name = object.at("vm_name").get<std::string>();
    vm.vm_path = object.at("vm_path").get<std::string>();
    vm.vcenter_host = object.at("vcenter_host").get<std::string>();
    vm.vmware_vm_id = object.at("vmware_vm_id").get<std::string>();
    vm.datacenter = object.at("datacenter").get<std::string>();
    const std::optional<Time> created_at = from_rfc3339(object.at("created_at").get<std::string>());
    if (!created_at) throw FileTextError("vm.json: created_at is not an RFC 3339 time");
    vm.created_at = vm.updated_at = *created_at;
    for (const Json& disk : object.at("disks")) vm.disks.push_back(decode_vm_disk(disk));
    return vm;
  } catch (const Json::exception& cause) {
    throw FileTextError(fmt::format("vm.json: {}", cause.what()));
  }
}

}  // namespace engine
