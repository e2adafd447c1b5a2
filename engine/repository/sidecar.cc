#include "engine/repository/sidecar.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/values/json_text.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

/// Keeps the members in the order in which they are named here.
using Json = nlohmann::ordered_json;

constexpr uint32_t kFormat = 1;
constexpr uint32_t kClusterBytes = 65536;

Json image_members(const Sidecar& sidecar) {
  Json info;
  info["virtual_size"] = sidecar.capacity_bytes;
  info["actual_size"] = sidecar.allocated_bytes;
  info["backing_file"] = sidecar.backing_file;
  info["format"] = "qcow2";
  info["cluster_size"] = kClusterBytes;
  info["compressed"] = false;
  info["encrypted"] = false;
  info["dirty_flag"] = false;
  return info;
}

Json metadata_members(const Sidecar& sidecar) {
  Json vmware;
  vmware["vmware_vm_id"] = sidecar.vmware_vm_id;
  vmware["vmware_disk_id"] = vmware_disk_id(sidecar.disk_key);
  vmware["disk_path"] = sidecar.disk_path;
  vmware["datastore_name"] = sidecar.datastore;
  vmware["change_id"] = sidecar.change_id;
  vmware["cbt_enabled"] = change_id_is_usable(sidecar.change_id);
  Json metadata;
  metadata["vmware_info"] = std::move(vmware);
  metadata["custom_metadata"] = Json::object();
  return metadata;
}

Json varve_members(const Sidecar& sidecar) {
  Json varve;
  varve["format"] = kFormat;
  varve["job_id"] = sidecar.job_id;
  varve["job_images"] = sidecar.job_images;
  varve["repository_id"] = sidecar.repository_id;
  varve["vm_path"] = sidecar.vm_path;
  varve["vcenter_host"] = sidecar.vcenter_host;
  varve["vmware_disk_key"] = sidecar.disk_key;
  varve["generation"] = sidecar.generation;
  varve["position"] = sidecar.position;
  varve["parent_change_id"] = sidecar.parent_change_id;
  varve["tags"] = Json::parse(to_json(sidecar.tags));
  varve["warnings"] = Json::parse(to_json(sidecar.warnings));
  return varve;
}

std::string text(const Json& object, const char* name) {
  return object.at(name).get<std::string>();
}

/// A count that is really a non-negative integer; the library would convert -1 and 1.5 as well.
uint64_t count(const Json& object, const char* name) {
  const Json& value = object.at(name);
  if (!value.is_number_unsigned()) {
    throw FileTextError(fmt::format("sidecar: {} is not a non-negative integer", name));
  }
  return value.get<uint64_t>();
}

/// A count of a type with 32 bits.
uint32_t small_count(const Json& object, const char* name) {
  const uint64_t value = count(object, name);
  if (value > UINT32_MAX) throw FileTextError(fmt::format("sidecar: {} is too large", name));
  return static_cast<uint32_t>(value);
}

void require_own_name(std::string_view member, std::string_view name, std::string_view prefix) {
  if (is_own_name(name, prefix)) return;
  throw FileTextError(fmt::format("sidecar: {} is not a name that varve makes", member));
}

void require_own_names(const Sidecar& sidecar) {
  require_own_name("backup_id", sidecar.image_id, kJobPrefix);
  require_own_name("vm_context_id", sidecar.context_id, kContextPrefix);
  require_own_name("job_id", sidecar.job_id, kJobPrefix);
  for (const std::string& id : sidecar.job_images) require_own_name("job_images", id, kJobPrefix);
  if (sidecar.parent_image_id.empty() && sidecar.backing_file.empty()) return;
  require_own_name("parent_backup_id", sidecar.parent_image_id, kJobPrefix);
  if (sidecar.backing_file != image_file_name(sidecar.parent_image_id)) {
    throw FileTextError("sidecar: backing_file is not the image of parent_backup_id");
  }
}

Time time(const Json& object, const char* name) {
  const std::optional<Time> value = from_rfc3339(text(object, name));
  if (!value) throw FileTextError(fmt::format("sidecar: {} is not an RFC 3339 time", name));
  return *value;
}

Sidecar decode(const Json& object) {
  if (!object.is_object() || !object.contains("varve")) {
    throw FileTextError("sidecar: not one of varve's (no member varve)");
  }
  const Json& varve = object.at("varve");
  if (count(varve, "format") != kFormat) {
    throw FileTextError(fmt::format("sidecar: format {} is not known", count(varve, "format")));
  }
  const Json& vmware = object.at("metadata").at("vmware_info");
  const std::optional<BackupType> type = from_text<BackupType>(text(object, "backup_type"));
  if (!type || *type == BackupType::differential) {
    throw FileTextError("sidecar: backup_type is neither full nor incremental");
  }
  Sidecar sidecar;
  sidecar.image_id = text(object, "backup_id");
  sidecar.context_id = text(object, "vm_context_id");
  sidecar.vm_name = text(object, "vm_name");
  sidecar.disk_index = small_count(object, "disk_id");
  sidecar.disk_key = small_count(varve, "vmware_disk_key");
  sidecar.type = *type;
  sidecar.parent_image_id = text(object, "parent_backup_id");
  sidecar.backing_file = text(object.at("qcow2_info"), "backing_file");
  sidecar.change_id = text(object, "change_id");
  sidecar.parent_change_id = text(varve, "parent_change_id");
  sidecar.file_bytes = count(object, "size_bytes");
  sidecar.allocated_bytes = count(object.at("qcow2_info"), "actual_size");
  sidecar.capacity_bytes = count(object, "total_bytes");
  sidecar.created_at = time(object, "created_at");
  sidecar.completed_at = time(object, "completed_at");
  sidecar.vmware_vm_id = text(vmware, "vmware_vm_id");
  sidecar.disk_path = text(vmware, "disk_path");
  sidecar.datastore = text(vmware, "datastore_name");
  sidecar.vm_path = text(varve, "vm_path");
  sidecar.vcenter_host = text(varve, "vcenter_host");
  sidecar.job_id = text(varve, "job_id");
  sidecar.repository_id = text(varve, "repository_id");
  sidecar.job_images = varve.at("job_images").get<std::vector<std::string>>();
  sidecar.generation = small_count(varve, "generation");
  sidecar.position = small_count(varve, "position");
  sidecar.tags = tags_from_json(varve.at("tags").dump());
  sidecar.warnings = warnings_from_json(varve.at("warnings").dump());
  require_own_names(sidecar);
  return sidecar;
}

}  // namespace

Sidecar sidecar_of(const Job& job, const JobDisk& disk, uint32_t generation, uint32_t position,
                   Time completed_at) {
  Sidecar sidecar;
  sidecar.image_id = disk.image_id;
  sidecar.context_id = job.context_id;
  sidecar.vm_name = job.vm_name;
  sidecar.disk_index = disk.index;
  sidecar.disk_key = disk.key;
  sidecar.type = disk.type;
  sidecar.parent_image_id = disk.parent_image_id;
  if (!disk.parent_image_id.empty()) sidecar.backing_file = image_file_name(disk.parent_image_id);
  sidecar.change_id = disk.change_id;
  sidecar.parent_change_id = disk.parent_change_id;
  sidecar.file_bytes = disk.file_bytes;
  sidecar.allocated_bytes = disk.allocated_bytes;
  sidecar.capacity_bytes = disk.capacity_bytes;
  sidecar.created_at = job.created_at;
  sidecar.completed_at = completed_at;
  sidecar.vmware_vm_id = job.vmware_vm_id;
  sidecar.disk_path = disk.vmdk_path;
  sidecar.datastore = disk.datastore;
  sidecar.vm_path = job.vm_path;
  sidecar.vcenter_host = job.vcenter_host;
  sidecar.job_id = job.id;
  sidecar.repository_id = job.repository_id;
  for (const JobDisk& other : job.disks) sidecar.job_images.push_back(other.image_id);
  sidecar.generation = generation;
  sidecar.position = position;
  sidecar.tags = job.tags;
  for (const Warning& warning : job.warnings) {
    if (warning.disk_index.value_or(disk.index) == disk.index) sidecar.warnings.push_back(warning);
  }
  return sidecar;
}

std::string encode_sidecar(const Sidecar& sidecar) {
  Json object;
  object["backup_id"] = sidecar.image_id;
  object["vm_context_id"] = sidecar.context_id;
  object["vm_name"] = sidecar.vm_name;
  object["disk_id"] = sidecar.disk_index;
  object["backup_type"] = to_text(sidecar.type);
  object["parent_backup_id"] = sidecar.parent_image_id;
  object["change_id"] = sidecar.change_id;
  object["size_bytes"] = sidecar.file_bytes;
  object["total_bytes"] = sidecar.capacity_bytes;
  object["created_at"] = to_rfc3339(sidecar.created_at);
  object["completed_at"] = to_rfc3339(sidecar.completed_at);
  object["qcow2_info"] = image_members(sidecar);
  object["metadata"] = metadata_members(sidecar);
  object["varve"] = varve_members(sidecar);
  return object.dump() + '\n';
}

Sidecar decode_sidecar(std::string_view bytes) {
  try {
    return decode(Json::parse(bytes));
  } catch (const Json::exception& cause) {
    throw FileTextError(fmt::format("sidecar: {}", cause.what()));
  }
}

}  // namespace engine
