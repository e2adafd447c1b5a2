// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// What a guest's disk says of itself: its partition table and the superblocks of its file systems,
/// each with an identity that stays as long as the thing does. For telling whether a disk is still
/// the one it was. Any bytes may come; unknown things are not seen. Pure.
namespace engine {

/// A partition table, a file system, a volume.
struct LayoutItem {
  uint64_t offset = 0;  ///< bytes of the disk
  std::string kind;     ///< "GPT", "ext4", ...
  std::string id;       ///< UUID or serial number, as tools print it

  bool operator==(const LayoutItem&) const = default;
};

/// A partition table, and where its partitions begin.
struct PartitionTable {
  LayoutItem item;
  std::vector<uint64_t> partition_offsets;  ///< bytes; the first kPartitionsMax
};

inline constexpr size_t kPartitionsMax = 32;
/// So much of the disk's beginning, and of each partition's, is looked at; 0x10000 is where btrfs
/// begins.
inline constexpr size_t kLayoutBytes = 0x11000;

/// Of the disk's first bytes. GPT with sectors of 512 or 4096 bytes, and the four primary
/// partitions of an MBR.
std::optional<PartitionTable> decode_partition_table(std::span<const std::byte> disk);

/// Of the first bytes of a partition, or of a disk without partitions, at `offset` of the disk.
/// ext2 to ext4, XFS, btrfs, NTFS, FAT, LUKS and LVM.
std::optional<LayoutItem> decode_superblock(std::span<const std::byte> begin, uint64_t offset);

/// What of `before` is no more, as sentences' parts: "the ext4 at byte 1048576 (1234…) is gone".
/// What is new where nothing was known is no change.
struct LayoutComparison {
  std::vector<std::string> changes;
  bool is_another_disk = false;  ///< nothing of `before` is left, and there is something else
};
LayoutComparison compare_layouts(std::span<const LayoutItem> before,
                                 std::span<const LayoutItem> now);

}  // namespace engine
