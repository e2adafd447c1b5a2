// SPDX-License-Identifier: Apache-2.0
#include "engine/values/registration.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/values/refusal.h"

namespace engine {
namespace {

using refusals::vm_context_invalid;

constexpr size_t kVmNameBytesMax = 255;
constexpr size_t kDisksMax = 1024;  // four times what VMware's virtual machines can have
constexpr uint64_t kSectorBytes = 512;

/// UTF-8 without control characters.
bool is_plain_text(const std::string& text) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (std::any_of(text.begin(), text.end(), is_control)) return false;
  try {
    nlohmann::json(text).dump();  // refuses what is not UTF-8
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
  return true;
}

void check_disks(const std::vector<NewVmDisk>& disks) {
  if (disks.empty()) throw vm_context_invalid("disks must name at least one disk");
  if (disks.size() > kDisksMax) {
    throw vm_context_invalid(
        fmt::format("disks: {} of them; a VM has at most {}", disks.size(), kDisksMax));
  }
  std::set<uint32_t> keys;
  for (size_t i = 0; i < disks.size(); ++i) {
    const std::optional<uint32_t> key = vmware_disk_key(disks[i].disk_id);
    if (!key) {
      throw vm_context_invalid(
          fmt::format("disks[{}].disk_id must be 'disk-' and the VMware key", i));
    }
    if (disks[i].capacity_bytes == 0 || disks[i].capacity_bytes % kSectorBytes != 0) {
      throw vm_context_invalid(
          fmt::format("disks[{}].capacity_bytes must be a positive multiple of 512", i));
    }
    if (!keys.insert(*key).second) {
      throw vm_context_invalid(fmt::format("disks[{}].disk_id is duplicated", i));
    }
  }
}

/// Where the VM is in its vCenter; nothing of it for a VM that no node is called for.
void check_place(const PutVmContext& request) {
  const bool has_path = !request.vm_path.empty(), has_host = !request.vcenter_host.empty();
  if (has_path && (!request.vm_path.starts_with('/') || request.vm_path.ends_with('/') ||
                   !is_plain_text(request.vm_path))) {
    throw vm_context_invalid("vm_path must begin with '/' and end with the VM's name");
  }
  if (has_host && !is_plain_text(request.vcenter_host)) {
    throw vm_context_invalid("vcenter_host must be text without control characters");
  }
  if (has_path != has_host) {
    throw vm_context_invalid(has_host ? "vm_path is required with vcenter_host"
                                      : "vcenter_host is required with vm_path");
  }
}

}  // namespace

void check_registration(const PutVmContext& request) {
  if (request.vm_name.empty() || request.vm_name.size() > kVmNameBytesMax ||
      !is_plain_text(request.vm_name)) {
    throw vm_context_invalid("vm_name must be 1 to 255 bytes of UTF-8 without control characters");
  }
  check_place(request);
  check_disks(request.disks);
}

}  // namespace engine
