// SPDX-License-Identifier: Apache-2.0
#include "engine/values/warnings.h"

#include <fmt/format.h>

namespace engine {
namespace {

/// The UUID of the new change id differs from the parent's.
bool tracking_was_reset(const JobDisk& disk) {
  return !disk.parent_change_id.empty() && change_id_is_usable(disk.change_id) &&
         change_id_uuid(disk.change_id) != change_id_uuid(disk.parent_change_id);
}

std::optional<Warning> sampled_zeroes(const JobDisk& disk) {
  if (disk.counters.sampled_zero_requests == 0 || !was_copied_in_full(disk)) return std::nullopt;
  return Warning{WarningCode::sampled_zeroes, disk.index,
                 fmt::format("disk {}: the client declared {} chunks ({} bytes) to be zero after "
                             "looking at 40 KiB of each; data elsewhere in them would be missing",
                             disk.index, disk.counters.sampled_zero_requests,
                             disk.counters.sampled_zero_bytes)};
}

std::optional<Warning> full_not_covered(const JobDisk& disk,
                                        std::optional<uint64_t> previous_full_stored_bytes) {
  if (disk.type != BackupType::full) return std::nullopt;
  if (disk.counters.covered_bytes < disk.capacity_bytes) {
    return Warning{
        WarningCode::full_not_covered, disk.index,
        fmt::format("disk {}: the client wrote or zeroed {} of {} bytes of a full image; the rest "
                    "reads as zeroes",
                    disk.index, disk.counters.covered_bytes, disk.capacity_bytes)};
  }
  // Halves are compared by subtraction: doubling could overflow.
  if (previous_full_stored_bytes && disk.counters.bytes_stored < *previous_full_stored_bytes &&
      disk.counters.bytes_stored < *previous_full_stored_bytes - disk.counters.bytes_stored) {
    return Warning{
        WarningCode::full_not_covered, disk.index,
        fmt::format("disk {}: this full image stores {} bytes, less than half of the "
                    "previous one's {}",
                    disk.index, disk.counters.bytes_stored, *previous_full_stored_bytes)};
  }
  return std::nullopt;
}

std::optional<Warning> change_tracking_reset(const JobDisk& disk) {
  if (!tracking_was_reset(disk)) return std::nullopt;
  return Warning{WarningCode::change_tracking_reset, disk.index,
                 fmt::format("disk {}: VMware's change tracking was reset since the parent backup; "
                             "the whole disk was sent into an incremental image",
                             disk.index)};
}

std::optional<Warning> change_id_unusable(const JobDisk& disk) {
  if (change_id_is_usable(disk.change_id)) return std::nullopt;
  return Warning{
      WarningCode::change_id_unusable, disk.index,
      fmt::format("disk {}: the change id '{}' does not contain exactly one '/', so it is "
                  "kept but never handed out: a client that asks for the change id in "
                  "the next incremental gets none, and copies the disk in full",
                  disk.index, disk.change_id)};
}

}  // namespace

std::optional<Warning> standalone_warning(uint32_t disk_index, uint64_t capacity_bytes,
                                          const std::optional<Point>& parent) {
  if (!parent) {
    return Warning{WarningCode::disk_added, disk_index,
                   fmt::format("disk {} has no earlier backup in this repository; it gets a full "
                               "image in this incremental backup",
                               disk_index)};
  }
  if (capacity_bytes < parent->capacity_bytes) {
    return Warning{WarningCode::disk_shrunk, disk_index,
                   fmt::format("disk {} shrank from {} to {} bytes; it gets a full image in this "
                               "incremental backup",
                               disk_index, parent->capacity_bytes, capacity_bytes)};
  }
  return std::nullopt;
}

std::optional<Warning> long_chain_warning(uint32_t disk_index, uint32_t images) {
  if (images < kChainImagesLong) return std::nullopt;
  return Warning{WarningCode::long_chain, disk_index,
                 fmt::format("disk {}: this is image {} of its chain, which can have {}; back the "
                             "VM up with backup_type full before that",
                             disk_index, images, kChainImagesMax)};
}

bool was_copied_in_full(const JobDisk& disk) {
  return disk.handed_out_change_id.empty() || tracking_was_reset(disk);
}

std::vector<Warning> sealed_warnings(const JobDisk& disk,
                                     std::optional<uint64_t> previous_full_stored_bytes,
                                     bool change_id_asked) {
  std::vector<Warning> warnings;
  const auto add = [&](std::optional<Warning> warning) {
    if (warning) warnings.push_back(std::move(*warning));
  };
  // Large zeroes of a writer that never asked for a change id come from a map of the source.
  if (change_id_asked) add(sampled_zeroes(disk));
  add(full_not_covered(disk, previous_full_stored_bytes));
  add(change_tracking_reset(disk));
  if (change_id_asked) add(change_id_unusable(disk));
  return warnings;
}

}  // namespace engine
