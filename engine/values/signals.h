// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/values/types.h"

/// What a backup of a disk looks like beside those before it: how much has changed, how much of it
/// cannot be compressed, and whether it is still the same disk. Spec: docs/signals.md. Pure.
namespace engine {

/// The warnings that say so; their message is the reason.
inline constexpr std::array kFlags = {WarningCode::encrypted, WarningCode::entropy_jump,
                                      WarningCode::wrong_disk, WarningCode::layout_changed};

/// Those of one disk among a job's warnings.
std::vector<Warning> flags_of(std::span<const Warning> warnings, uint32_t disk_index);

/// Between 0 and 1; nothing where it is not known.
struct DiskSignals {
  std::optional<double> change_share;          ///< stored, of the disk's size
  std::optional<double> incompressible_share;  ///< of the data received, by samples
  std::optional<double> zero_share;    ///< of what was written or zeroed; declared or as data
  std::optional<double> elided_share;  ///< equal to the parent and dropped, of the data received
};

DiskSignals signals_of(const DiskCounters& counters, uint64_t capacity_bytes);

/// What the parent holds where the new image holds data that cannot be compressed, and what has
/// become of its partition table and file systems.
struct ParentComparison {
  uint32_t samples = 0;            ///< places looked at
  uint32_t were_compressible = 0;  ///< of those, where the parent holds data that can be compressed
  std::vector<std::string> layout_changes;  ///< sentences; empty: it is as it was
  bool is_another_disk = false;             ///< nothing of the parent's layout is left
};

/// Judges a sealed disk. `history` has the disk's points before it, newest first.
std::vector<Warning> signal_warnings(const JobDisk& disk, const ParentComparison& parent,
                                     std::span<const Point> history);

/// So many points make the history.
inline constexpr size_t kHistoryPoints = 16;

}  // namespace engine
