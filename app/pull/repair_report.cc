// SPDX-License-Identifier: Apache-2.0
#include "app/pull/repair_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/copy_report.h"

namespace app {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string places_of(const std::vector<WantedCluster>& clusters) {
  constexpr size_t kShown = 3;
  const std::vector<engine::CopyRange> ranges = ranges_of(clusters);
  std::string text = fmt::format("{} bytes (", bytes_of(clusters));
  for (size_t at = 0; at < std::min(kShown, ranges.size()); ++at) {
    text += fmt::format("{}{}+{}", at == 0 ? "" : ", ", ranges[at].offset, ranges[at].length);
  }
  return text + (ranges.size() > kShown ? ", ...)" : ")");
}

OrderedJson places_in_json(const std::vector<WantedCluster>& clusters) {
  constexpr size_t kTold = 1000;
  OrderedJson list = OrderedJson::array();
  for (const engine::CopyRange& range : ranges_of(clusters)) {
    if (list.size() == kTold) break;
    list.push_back({{"offset", range.offset}, {"length", range.length}});
  }
  return list;
}

}  // namespace

void report_nothing_wanted(bool json, const std::string& vm_name) {
  if (json) {
    print_json_line({{"event", "nothing_wanted"}});
  } else {
    fmt::print(stderr, "nothing is wanted of {}: no damage is known in its newest point\n",
               vm_name);
  }
}

void report_repaired(bool json, const RepairedDisk& disk) {
  if (json) {
    print_json_line({{"event", "repaired"},
                     {"disk_id", disk.index},
                     {"healed_bytes", bytes_of(disk.same)},
                     {"healed", places_in_json(disk.same)},
                     {"changed_bytes", bytes_of(disk.changed)},
                     {"changed", places_in_json(disk.changed)},
                     {"unknown_bytes", bytes_of(disk.unknown)},
                     {"unknown", places_in_json(disk.unknown)}});
    return;
  }
  if (!disk.same.empty()) {
    fmt::print(stderr, "disk {}: healed {}\n", disk.index, places_of(disk.same));
  }
  if (!disk.changed.empty()) {
    fmt::print(stderr,
               "disk {}: {} have changed in the source since the newest point and stay damaged: "
               "pull with --into-chain\n",
               disk.index, places_of(disk.changed));
  }
  if (!disk.unknown.empty()) {
    fmt::print(stderr,
               "disk {}: of {} no manifest says what they were, and they stay damaged: pull with "
               "--into-chain\n",
               disk.index, places_of(disk.unknown));
  }
}

void report_repair_published(bool json, const std::string& vm_name, const std::string& backup_id,
                             const std::string& change_id) {
  if (json) {
    print_json_line({{"event", "published"},
                     {"backup_id", backup_id},
                     {"backup_type", "incremental"},
                     {"into_chain", false},
                     {"change_id", change_id},
                     {"repair", true}});
  } else {
    fmt::print(stderr, "published {}, a repair of the newest point of {}\n", backup_id, vm_name);
  }
}

void report_still_damaged(bool json, const std::vector<std::string>& backups) {
  if (json) {
    print_json_line({{"event", "still_damaged"}, {"backups", backups}});
  } else if (!backups.empty()) {
    fmt::print(stderr, "older points that stay damaged: {}\n", fmt::join(backups, ", "));
  }
}

void report_still_wanted(bool json, const RepairedDisk& disk, const Wanted& now) {
  const auto found = std::ranges::find(now.disks, disk.index, &WantedOfDisk::index);
  if (found == now.disks.end()) return;
  std::vector<WantedCluster> left;
  for (const WantedCluster& cluster : found->clusters) {
    if (std::ranges::binary_search(disk.same, cluster.offset, {}, &WantedCluster::offset)) {
      left.push_back(cluster);
    }
  }
  if (left.empty()) return;
  report_warning(json, fmt::format("disk {}: {} read as they were sent after all, and are not "
                                   "stored anew: verify the VM again",
                                   disk.index, places_of(left)));
}

}  // namespace app
