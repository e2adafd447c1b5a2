// SPDX-License-Identifier: Apache-2.0
#include "app/pull/wanted.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <stdexcept>

#include "qcow/format/zero_check.h"

namespace app {
namespace {

using Json = nlohmann::json;

qcow::Sum sum_from(const std::string& hex) {
  if (const auto sum = qcow::sum_from_text(hex)) return *sum;
  throw std::runtime_error(fmt::format("the server's checksum \"{}\" is not 32 hex digits", hex));
}

void add_range(WantedOfDisk& disk, const Json& range) {
  const uint64_t offset = range.at("offset"), length = range.at("length");
  const Json sums = range.value("sums", Json::array());
  const bool zero = range.at("zero");
  for (uint64_t at = 0; at < length; at += disk.cluster_bytes) {
    WantedCluster cluster{.offset = offset + at,
                          .length = std::min(disk.cluster_bytes, length - at)};
    if (zero) {
      cluster.known = WantedCluster::Known::zero;
    } else if (!sums.empty()) {
      cluster.known = WantedCluster::Known::by_sum;
      cluster.sum = sum_from(sums.at(at / disk.cluster_bytes));
    }
    disk.clusters.push_back(cluster);
  }
}

WantedOfDisk disk_from(const Json& found) {
  WantedOfDisk disk{.index = found.at("disk_id"),
                    .label = {},
                    .backup_id = found.at("backup_id"),
                    .change_id = found.at("change_id"),
                    .size_bytes = found.at("size_bytes"),
                    .cluster_bytes = found.at("cluster_bytes"),
                    .clusters = {}};
  if (disk.cluster_bytes == 0) throw std::runtime_error("the server's clusters have no size");
  for (const Json& range : found.at("ranges")) add_range(disk, range);
  return disk;
}

/// A point that heals is an incremental of all disks, and changes nothing but what is damaged.
void require_same_disks(const Wanted& wanted, const std::string& vm_name) {
  for (const WantedOfDisk& disk : wanted.disks) {
    std::string why;
    if (disk.backup_id.empty()) {
      why = "it has no point yet";
    } else if (disk.backup_id != wanted.disks.front().backup_id) {
      why = fmt::format("its newest point is of backup {}, that of disk {} of backup {}",
                        disk.backup_id, wanted.disks.front().index, wanted.disks.front().backup_id);
    } else if (disk.registered_bytes != disk.size_bytes) {
      why = fmt::format("it is registered with {} bytes, and has {} in the newest point",
                        disk.registered_bytes, disk.size_bytes);
    }
    if (why.empty()) continue;
    throw PullRefused(fmt::format(
        "--repair: disk {} of VM {} has changed since the newest point: {}; pull with --into-chain",
        disk.index, vm_name, why));
  }
}

}  // namespace

bool WantedCluster::is(std::span<const std::byte> cluster) const {
  if (known == Known::nothing) return false;
  return known == Known::zero ? qcow::is_zero(cluster) : qcow::sum_of(cluster) == sum;
}

uint64_t Wanted::bytes() const {
  uint64_t sum = 0;
  for (const WantedOfDisk& disk : disks) sum += bytes_of(disk.clusters);
  return sum;
}

Wanted read_wanted(Hub& hub, const std::string& vm_name, const std::string& repository_id) {
  const Json answer = hub.wanted(vm_name, repository_id);
  Wanted wanted{.disks = {}, .complete = answer.at("complete"), .damaged_backups = {}};
  for (const Json& registered : hub.vm_disks(vm_name)) {
    WantedOfDisk disk;
    for (const Json& found : answer.at("disks")) {
      if (found.at("disk_id") == registered.at("disk_index")) disk = disk_from(found);
    }
    disk.index = registered.at("disk_index");
    disk.label = registered.value("label", "");
    disk.registered_bytes = registered.at("capacity_bytes");
    wanted.disks.push_back(std::move(disk));
  }
  std::set<std::string> damaged;
  for (const Json& image : answer.at("damaged_images")) {
    for (const Json& backup : image.at("damaged_backups")) damaged.insert(backup);
  }
  wanted.damaged_backups.assign(damaged.begin(), damaged.end());
  if (wanted.bytes() > 0) require_same_disks(wanted, vm_name);
  return wanted;
}

std::vector<engine::CopyRange> ranges_of(const std::vector<WantedCluster>& clusters) {
  std::vector<engine::CopyRange> ranges;
  for (const WantedCluster& cluster : clusters) {
    if (!ranges.empty() && ranges.back().offset + ranges.back().length == cluster.offset) {
      ranges.back().length += cluster.length;
    } else {
      ranges.push_back({cluster.offset, cluster.length, false});
    }
  }
  return ranges;
}

uint64_t bytes_of(const std::vector<WantedCluster>& clusters) {
  uint64_t sum = 0;
  for (const WantedCluster& cluster : clusters) sum += cluster.length;
  return sum;
}

}  // namespace app
