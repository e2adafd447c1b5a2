// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/values/types.h"

/// What varve noticed about a backup that the operator should know. Spec: docs/jobs.md, "Warnings".
/// Pure.
namespace engine {

/// Why a disk's image stands alone although the job is incremental; nothing when it does not.
/// `parent` is the disk's newest point in the repository.
std::optional<Warning> standalone_warning(uint32_t disk_index, uint64_t capacity_bytes,
                                          const std::optional<Point>& parent);

/// Images that can be read together, the newest among them: a full and the incrementals on it.
inline constexpr uint32_t kChainImagesMax = 256;
/// From so many on it is time for a full.
inline constexpr uint32_t kChainImagesLong = 200;

/// Of an image that is the `images`th of its chain; nothing while the chain is short.
std::optional<Warning> long_chain_warning(uint32_t disk_index, uint32_t images);

/// Whether the client copied the disk in full, for all that varve can tell: it was given no change
/// id, or one of another change tracking.
bool was_copied_in_full(const JobDisk& disk);

/// Of a disk with its counters and recorded change id, in the order of WarningCode.
/// `previous_full_stored_bytes`: what the disk's previous full stored, where there is one.
/// `change_id_asked`: by the writer, which is the existing client then, and does so next time too.
std::vector<Warning> sealed_warnings(const JobDisk& disk,
                                     std::optional<uint64_t> previous_full_stored_bytes,
                                     bool change_id_asked);

}  // namespace engine
