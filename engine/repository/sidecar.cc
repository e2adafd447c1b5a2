// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/sidecar.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "engine/values/json_text.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

/// Keeps the members in the order in which they are named here.
using Json = nlohmann::ordered_json;
using Pointer = Json::json_pointer;

constexpr uint32_t kClusterBytes = 65536;

/// Of visit(): makes the text.
class Writer {
 public:
  void only_written(const char* at, Json value) { object_[Pointer(at)] = std::move(value); }
  template <typename T>
  void both(const char* at, const T& value) {
    if constexpr (std::is_same_v<T, std::optional<Time>>) {
      both(at, value.value());
    } else if constexpr (std::is_same_v<T, Time>) {
      only_written(at, to_rfc3339(value));
    } else if constexpr (std::is_enum_v<T>) {
      only_written(at, to_text(value));
    } else if constexpr (std::is_same_v<T, std::vector<Warning>>) {
      only_written(at, Json::parse(to_json(value)));
    } else {
      only_written(at, value);
    }
  }
  std::string text() const { return object_.dump() + '\n'; }

 private:
  Json object_;
};

/// Of visit(): takes the values out of a text, and checks them.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {}

  void only_written(const char*, const Json&) {}
  template <typename T>
  void both(const char* at, T& value) {
    const Pointer place(at);
    const Json& json = object_.at(place);
    const auto require = [&](bool holds, const char* what) {
      if (!holds) throw FileTextError(fmt::format("sidecar: {} {}", place.back(), what));
    };
    if constexpr (std::is_unsigned_v<T>) {
      // The library would convert -1 and 1.5 as well.
      require(json.is_number_unsigned(), "is not a non-negative integer");
      require(json.get<uint64_t>() <= std::numeric_limits<T>::max(), "is too large");
      value = json.get<T>();
    } else if constexpr (std::is_same_v<T, std::optional<Time>>) {
      both(at, value.emplace());
    } else if constexpr (std::is_same_v<T, Time>) {
      const std::optional<Time> time = from_rfc3339(json.get<std::string>());
      require(time.has_value(), "is not an RFC 3339 time");
      value = *time;
    } else if constexpr (std::is_same_v<T, BackupType>) {
      value = from_text<BackupType>(json.get<std::string>()).value_or(BackupType::differential);
      require(value != BackupType::differential, "is neither full nor incremental");
    } else if constexpr (std::is_same_v<T, std::vector<Warning>>) {
      value = warnings_from_json(json.dump());
    } else {
      value = json.get<T>();
    }
  }

 private:
  const Json& object_;
};

/// Every member, in the order in which they are written.
template <typename Visitor, typename SidecarOrConst>
void visit(Visitor& to, SidecarOrConst& sidecar) {
  to.both("/backup_id", sidecar.disk.image_id);
  to.both("/vm_context_id", sidecar.job.context_id);
  to.both("/vm_name", sidecar.job.vm_name);
  to.both("/disk_id", sidecar.disk.index);
  to.both("/backup_type", sidecar.disk.type);
  to.both("/parent_backup_id", sidecar.disk.parent_image_id);
  to.both("/change_id", sidecar.disk.change_id);
  to.both("/size_bytes", sidecar.disk.file_bytes);
  to.both("/total_bytes", sidecar.disk.capacity_bytes);
  to.both("/created_at", sidecar.job.created_at);
  to.both("/completed_at", sidecar.job.completed_at);
  to.only_written("/qcow2_info/virtual_size", sidecar.disk.capacity_bytes);
  to.both("/qcow2_info/actual_size", sidecar.disk.allocated_bytes);
  to.both("/qcow2_info/backing_file", sidecar.backing_file);
  to.only_written("/qcow2_info/format", "qcow2");
  to.only_written("/qcow2_info/cluster_size", kClusterBytes);
  to.only_written("/qcow2_info/compressed", false);
  to.only_written("/qcow2_info/encrypted", false);
  to.only_written("/qcow2_info/dirty_flag", false);
  to.both("/metadata/vmware_info/vmware_vm_id", sidecar.job.vmware_vm_id);
  to.only_written("/metadata/vmware_info/vmware_disk_id", vmware_disk_id(sidecar.disk.key));
  to.both("/metadata/vmware_info/disk_path", sidecar.disk.vmdk_path);
  to.both("/metadata/vmware_info/datastore_name", sidecar.disk.datastore);
  to.only_written("/metadata/vmware_info/change_id", sidecar.disk.change_id);
  to.only_written("/metadata/vmware_info/cbt_enabled", change_id_is_usable(sidecar.disk.change_id));
  to.only_written("/metadata/custom_metadata", Json::object());
  to.only_written("/varve/format", sidecar.format);
  to.both("/varve/job_id", sidecar.job.id);
  to.both("/varve/job_images", sidecar.job_images);
  to.both("/varve/repository_id", sidecar.job.repository_id);
  to.both("/varve/vm_path", sidecar.job.vm_path);
  to.both("/varve/vcenter_host", sidecar.job.vcenter_host);
  to.both("/varve/vmware_disk_key", sidecar.disk.key);
  to.both("/varve/generation", sidecar.disk.place.generation);
  to.both("/varve/position", sidecar.disk.place.position);
  to.both("/varve/parent_change_id", sidecar.disk.parent_change_id);
  to.both("/varve/tags", sidecar.job.tags);
  to.both("/varve/warnings", sidecar.job.warnings);
  if (sidecar.format < 2) return;
  to.both("/varve/sums_sha256", sidecar.disk.sums_sha256);
  to.both("/varve/parent_root", sidecar.disk.parent_root);
  if (sidecar.format < 3) return;
  to.both("/varve/job_type", sidecar.job.type);
  to.both("/varve/bytes_received", sidecar.disk.counters.bytes_received);
  to.both("/varve/bytes_zeroed", sidecar.disk.counters.bytes_zeroed);
  to.both("/varve/bytes_elided", sidecar.disk.counters.bytes_elided);
  to.both("/varve/bytes_stored", sidecar.disk.counters.bytes_stored);
  to.both("/varve/judged_bytes", sidecar.disk.counters.judged_bytes);
  to.both("/varve/incompressible_bytes", sidecar.disk.counters.incompressible_bytes);
  to.both("/varve/zero_data_bytes", sidecar.disk.counters.zero_data_bytes);
}

void require_own_name(std::string_view member, std::string_view name, std::string_view prefix) {
  if (is_own_name(name, prefix)) return;
  throw FileTextError(fmt::format("sidecar: {} is not a name that varve makes", member));
}

void require_own_names(const Sidecar& sidecar) {
  require_own_name("backup_id", sidecar.disk.image_id, kJobPrefix);
  require_own_name("vm_context_id", sidecar.job.context_id, kContextPrefix);
  require_own_name("job_id", sidecar.job.id, kJobPrefix);
  for (const std::string& id : sidecar.job_images) require_own_name("job_images", id, kJobPrefix);
  if (sidecar.disk.parent_image_id.empty() && sidecar.backing_file.empty()) return;
  require_own_name("parent_backup_id", sidecar.disk.parent_image_id, kJobPrefix);
  if (sidecar.backing_file != image_file_name(sidecar.disk.parent_image_id)) {
    throw FileTextError("sidecar: backing_file is not the image of parent_backup_id");
  }
}

}  // namespace

Sidecar sidecar_of(const Job& job, const JobDisk& disk, Time completed_at) {
  Sidecar sidecar{.job = job, .disk = disk};
  sidecar.job.completed_at = completed_at;
  sidecar.job.disks.clear();
  std::erase_if(sidecar.job.warnings, [&](const Warning& warning) {
    return warning.disk_index.value_or(disk.index) != disk.index;
  });
  if (!disk.parent_image_id.empty()) sidecar.backing_file = image_file_name(disk.parent_image_id);
  for (const JobDisk& other : job.disks) sidecar.job_images.push_back(other.image_id);
  return sidecar;
}

std::string encode_sidecar(const Sidecar& sidecar) {
  Writer writer;
  visit(writer, sidecar);
  return writer.text();
}

Sidecar decode_sidecar(std::string_view bytes) {
  try {
    const Json object = Json::parse(bytes);
    if (!object.is_object() || !object.contains("varve")) {
      throw FileTextError("sidecar: not one of varve's (no member varve)");
    }
    Reader reader(object);
    Sidecar sidecar;
    reader.both("/varve/format", sidecar.format);
    if (sidecar.format < 1 || sidecar.format > kSidecarFormat) {
      throw FileTextError(fmt::format("sidecar: format {} is not known", sidecar.format));
    }
    visit(reader, sidecar);
    require_own_names(sidecar);
    return sidecar;
  } catch (const Json::exception& cause) {
    throw FileTextError(fmt::format("sidecar: {}", cause.what()));
  }
}

}  // namespace engine
