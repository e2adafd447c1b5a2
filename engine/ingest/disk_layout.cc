// SPDX-License-Identifier: Apache-2.0
#include "engine/ingest/disk_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string_view>

#include "io/big_endian.h"
#include "io/little_endian.h"

namespace engine {
namespace {

using Bytes = std::span<const std::byte>;

bool has(Bytes bytes, size_t at, std::string_view text) {
  if (at > bytes.size() || text.size() > bytes.size() - at) return false;
  return std::ranges::equal(bytes.subspan(at, text.size()), std::as_bytes(std::span(text)));
}

/// 0 where the bytes end before.
template <typename T>
T little(Bytes bytes, size_t at) {
  if (at > bytes.size() || sizeof(T) > bytes.size() - at) return 0;
  return io::load_le<T>(&bytes[at]);
}

/// In the order of its bytes: "e8c2…".
std::string uuid_text(Bytes bytes, size_t at) {
  std::string text;
  for (size_t i = 0; i < 16 && at + i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<uint8_t>(bytes[at + i]));
  }
  return text;
}

/// Of a GPT, whose first three groups are little-endian.
std::string guid_text(Bytes bytes, size_t at) {
  const std::string rest = uuid_text(bytes, at);
  return fmt::format("{:08x}-{:04x}-{:04x}{}", little<uint32_t>(bytes, at),
                     little<uint16_t>(bytes, at + 4), little<uint16_t>(bytes, at + 6),
                     rest.size() > 18 ? rest.substr(18) : "");
}

bool is_zero(Bytes bytes, size_t at, size_t count) {
  return std::ranges::all_of(bytes.subspan(at, count),
                             [](std::byte byte) { return byte == std::byte{0}; });
}

std::optional<PartitionTable> decode_gpt(Bytes disk, uint64_t sector) {
  if (!has(disk, sector, "EFI PART") || disk.size() < 2 * sector) return std::nullopt;
  PartitionTable table{.item = {0, "GPT", guid_text(disk, sector + 56)}};
  const auto first = little<uint64_t>(disk, sector + 72);
  const auto count = little<uint32_t>(disk, sector + 80);
  const auto entry_bytes = little<uint32_t>(disk, sector + 84);
  if (entry_bytes < 128 || first > disk.size() / sector) return table;
  uint64_t at = first * sector;
  for (uint32_t i = 0; i < count && at + entry_bytes <= disk.size(); ++i, at += entry_bytes) {
    if (is_zero(disk, at, 16)) continue;  // no partition
    const auto begin = little<uint64_t>(disk, at + 32);
    if (begin > UINT64_MAX / sector) continue;
    if (table.partition_offsets.size() == kPartitionsMax) break;
    table.partition_offsets.push_back(begin * sector);
  }
  return table;
}

std::optional<PartitionTable> decode_mbr(Bytes disk) {
  constexpr size_t kEntries = 446, kEntryBytes = 16, kSector = 512;
  if (disk.size() < kSector || !has(disk, 510, "\x55\xaa")) return std::nullopt;
  PartitionTable table{.item = {0, "MBR", fmt::format("{:08x}", little<uint32_t>(disk, 440))}};
  for (size_t at = kEntries; at < kEntries + 4 * kEntryBytes; at += kEntryBytes) {
    const uint64_t first = little<uint32_t>(disk, at + 8);
    if (disk[at + 4] == std::byte{0} || first == 0) continue;
    table.partition_offsets.push_back(first * kSector);
  }
  if (table.partition_offsets.empty()) return std::nullopt;  // a boot sector
  return table;
}

std::string_view ext_kind(Bytes super) {
  constexpr uint32_t kHasJournal = 0x4, kExtents = 0x40;
  if ((little<uint32_t>(super, 0x60) & kExtents) != 0) return "ext4";
  return (little<uint32_t>(super, 0x5c) & kHasJournal) != 0 ? "ext3" : "ext2";
}

std::string text_until_zero(Bytes bytes, size_t at, size_t length) {
  std::string text;
  for (size_t i = at; i < at + length && i < bytes.size(); ++i) {
    const auto letter = std::to_integer<char>(bytes[i]);
    if (letter < ' ' || letter > '~') break;
    text += letter;
  }
  return text;
}

std::optional<std::pair<std::string_view, std::string>> identify(Bytes begin) {
  using Found = std::pair<std::string_view, std::string>;
  using namespace std::string_view_literals;
  if (has(begin, 0, "LUKS\xba\xbe"sv)) return Found{"LUKS", text_until_zero(begin, 168, 40)};
  if (has(begin, 0, "XFSB"sv)) return Found{"XFS", uuid_text(begin, 32)};
  if (has(begin, 3, "NTFS    "sv)) {
    return Found{"NTFS", fmt::format("{:016x}", little<uint64_t>(begin, 0x48))};
  }
  if (has(begin, 82, "FAT32   "sv)) {
    return Found{"FAT32", fmt::format("{:08x}", little<uint32_t>(begin, 67))};
  }
  if (has(begin, 54, "FAT16   "sv)) {
    return Found{"FAT16", fmt::format("{:08x}", little<uint32_t>(begin, 39))};
  }
  for (size_t sector = 0; sector < 4 * 512; sector += 512) {
    if (has(begin, sector, "LABELONE"sv) && has(begin, sector + 24, "LVM2 001"sv)) {
      return Found{"LVM", text_until_zero(begin, sector + 32, 32)};
    }
  }
  if (has(begin, 0x10040, "_BHRfS_M"sv)) return Found{"btrfs", uuid_text(begin, 0x10020)};
  constexpr size_t kExtSuper = 1024;
  if (has(begin, kExtSuper + 0x38, "\x53\xef"sv) && begin.size() >= 2 * kExtSuper) {
    const Bytes super = begin.subspan(kExtSuper, kExtSuper);
    return Found{ext_kind(super), uuid_text(super, 0x68)};
  }
  return std::nullopt;
}

std::string words(const LayoutItem& item) {
  return fmt::format("the {} at byte {} ({})", item.kind, item.offset, item.id);
}

}  // namespace

std::optional<PartitionTable> decode_partition_table(Bytes disk) {
  for (const uint64_t sector : {512, 4096}) {
    if (auto table = decode_gpt(disk, sector)) return table;
  }
  return decode_mbr(disk);
}

std::optional<LayoutItem> decode_superblock(Bytes begin, uint64_t offset) {
  const auto found = identify(begin);
  if (!found) return std::nullopt;
  return LayoutItem{offset, std::string(found->first), found->second};
}

LayoutComparison compare_layouts(std::span<const LayoutItem> before,
                                 std::span<const LayoutItem> now) {
  LayoutComparison comparison;
  for (const LayoutItem& item : before) {
    // An ext3 may become an ext4 and stays what it is.
    const bool stays = std::ranges::any_of(now, [&](const LayoutItem& other) {
      return other.offset == item.offset && other.id == item.id;
    });
    if (stays) continue;
    const auto other = std::ranges::find(now, item.offset, &LayoutItem::offset);
    comparison.changes.push_back(
        other == now.end() ? fmt::format("{} is gone", words(item))
                           : fmt::format("{} is now {} ({})", words(item), other->kind, other->id));
  }
  comparison.is_another_disk =
      !before.empty() && !now.empty() && comparison.changes.size() == before.size();
  return comparison;
}

}  // namespace engine
