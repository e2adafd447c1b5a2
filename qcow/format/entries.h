// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "io/big_endian.h"
#include "qcow/format/geometry.h"

/// The words of the tables: L1 and L2 entries, refcount table entries, refcounts. Pure.
///
/// Decoders answer nothing for a word that the format forbids; the caller turns that into the
/// sentence of RF18 with the guest offset. Spec: qemu docs/interop/qcow2, "L1 table entry", "L2
/// table entry", "Compressed Clusters Descriptor"; rules LT5–LT8, CP2.
namespace qcow {

inline constexpr uint64_t kEntryOffsetMask = 0x00ff'ffff'ffff'fe00;  // bits 9–55
inline constexpr uint64_t kEntryCopied = uint64_t{1} << 63;
inline constexpr uint64_t kEntryCompressed = uint64_t{1} << 62;
inline constexpr uint64_t kEntryZero = 1;
inline constexpr uint64_t kL1ReservedMask = 0x7f00'0000'0000'01ff;
inline constexpr uint64_t kL2ReservedMask = 0x3f00'0000'0000'01fe;
inline constexpr uint64_t kRefcountTableReservedMask = 0x1ff;

/// Where an L2 table is, if there is one.
struct L1Entry {
  HostOffset table;  ///< 0: the whole range is unallocated
  bool copied = false;

  static constexpr std::optional<L1Entry> decode(uint64_t raw, uint32_t cluster_bits) {
    const uint64_t offset = raw & kEntryOffsetMask;
    const bool copied = (raw & kEntryCopied) != 0;
    if ((raw & kL1ReservedMask) != 0) return {};
    if (offset % (uint64_t{1} << cluster_bits) != 0) return {};
    if (offset == 0 && copied) return {};
    return L1Entry{HostOffset{offset}, copied};
  }
  constexpr uint64_t encode() const {
    assert((table.bytes & ~kEntryOffsetMask) == 0 && (table || !copied));
    return table.bytes | (copied ? kEntryCopied : 0);
  }
  bool operator==(const L1Entry&) const = default;
};

enum class MappingKind : uint8_t {
  unallocated,  ///< this image says nothing: its parent answers, or zeroes
  zero,         ///< reads as zeroes, whatever the parent holds
  data,         ///< one host cluster
  compressed,   ///< a stream that starts at a host byte and may run over a cluster border
};

/// What an L2 entry says about one guest cluster.
struct Mapping {
  MappingKind kind = MappingKind::unallocated;
  /// data: the host cluster. compressed: the stream's first byte. zero: the cluster that stays
  /// reserved (preallocated zero), or 0.
  HostOffset host;
  bool copied = false;   ///< the host cluster's refcount is exactly one
  uint32_t sectors = 0;  ///< compressed only: 512-byte sectors touched, the first one included

  static constexpr Mapping unallocated() { return {}; }
  static constexpr Mapping plain_zero() { return {MappingKind::zero, {}, false, 0}; }
  static constexpr Mapping data_at(HostOffset host, bool copied = true) {
    return {MappingKind::data, host, copied, 0};
  }

  /// Bytes from the stream's start to the end of its last sector: an upper bound of its length.
  constexpr uint64_t compressed_bytes() const {
    assert(kind == MappingKind::compressed && sectors > 0);
    return sectors * uint64_t{512} - host.bytes % 512;
  }

  bool operator==(const Mapping&) const = default;
};

/// Bits of a compressed cluster's descriptor that hold the host byte offset.
constexpr uint32_t compressed_offset_bits(uint32_t cluster_bits) { return 62 - (cluster_bits - 8); }

constexpr Mapping decode_compressed_entry(uint64_t raw, uint32_t cluster_bits) {
  const uint32_t x = compressed_offset_bits(cluster_bits);
  const uint64_t further_sectors = (raw & (kEntryCompressed - 1)) >> x;
  return {MappingKind::compressed, HostOffset{raw & ((uint64_t{1} << x) - 1)},
          (raw & kEntryCopied) != 0, static_cast<uint32_t>(further_sectors) + 1};
}

/// `version` is the image's: the zero flag exists from version 3 on and is reserved before.
constexpr std::optional<Mapping> decode_l2_entry(uint64_t raw, uint32_t cluster_bits,
                                                 uint32_t version = 3) {
  if ((raw & kEntryCompressed) != 0) return decode_compressed_entry(raw, cluster_bits);
  const uint64_t offset = raw & kEntryOffsetMask;
  const bool copied = (raw & kEntryCopied) != 0;
  const bool zero = (raw & kEntryZero) != 0;
  if ((raw & kL2ReservedMask) != 0) return {};
  if (zero && version < 3) return {};
  if (offset % (uint64_t{1} << cluster_bits) != 0) return {};
  if (offset == 0 && copied) return {};
  if (zero) return Mapping{MappingKind::zero, HostOffset{offset}, copied, 0};
  if (offset == 0) return Mapping::unallocated();
  return Mapping::data_at(HostOffset{offset}, copied);
}

constexpr uint64_t encode_l2_entry(const Mapping& mapping, uint32_t cluster_bits) {
  assert(mapping.kind == MappingKind::compressed ||
         ((mapping.host.bytes & ~kEntryOffsetMask) == 0 &&
          mapping.host.bytes % (uint64_t{1} << cluster_bits) == 0));
  assert(mapping.kind != MappingKind::data || mapping.host);  // 0 would say unallocated
  const uint64_t copied = mapping.copied ? kEntryCopied : 0;
  switch (mapping.kind) {
    case MappingKind::unallocated:
      return 0;
    case MappingKind::zero:
      return mapping.host.bytes | copied | kEntryZero;
    case MappingKind::data:
      return mapping.host.bytes | copied;
    case MappingKind::compressed:
      return kEntryCompressed | copied | mapping.host.bytes |
             (uint64_t{mapping.sectors - 1} << compressed_offset_bits(cluster_bits));
  }
  return 0;
}

/// Where a refcount block is; 0: all its refcounts are 0. Nothing for a forbidden word.
constexpr std::optional<HostOffset> decode_refcount_table_entry(uint64_t raw,
                                                                uint32_t cluster_bits) {
  if (raw % (uint64_t{1} << cluster_bits) != 0 || raw >= kHostOffsetEnd) return {};
  return HostOffset{raw};
}

/// The refcount at `index` of a refcount block; each is 2^order bits wide.
inline uint64_t get_refcount(std::span<const std::byte> block, uint64_t index, uint32_t order) {
  assert(order <= kRefcountOrderMax && (index << order) / 8 < block.size());
  switch (order) {
    case 3:
      return io::load_be<uint8_t>(&block[index]);
    case 4:
      return io::load_be<uint16_t>(&block[index * 2]);
    case 5:
      return io::load_be<uint32_t>(&block[index * 4]);
    case 6:
      return io::load_be<uint64_t>(&block[index * 8]);
    default: {  // several in a byte, the first one in its lowest bits
      const uint64_t per_byte_bits = 3 - order;
      const uint32_t width = 1u << order;
      const uint32_t shift = static_cast<uint32_t>(index & ((1u << per_byte_bits) - 1)) * width;
      return (std::to_integer<uint32_t>(block[index >> per_byte_bits]) >> shift) &
             ((1u << width) - 1);
    }
  }
}

/// `refcount` must be within Geometry::refcount_max().
inline void set_refcount(std::span<std::byte> block, uint64_t index, uint32_t order,
                         uint64_t refcount) {
  assert(order <= kRefcountOrderMax && (index << order) / 8 < block.size());
  switch (order) {
    case 3:
      return io::store_be(&block[index], static_cast<uint8_t>(refcount));
    case 4:
      return io::store_be(&block[index * 2], static_cast<uint16_t>(refcount));
    case 5:
      return io::store_be(&block[index * 4], static_cast<uint32_t>(refcount));
    case 6:
      return io::store_be(&block[index * 8], refcount);
    default: {
      const uint64_t per_byte_bits = 3 - order;
      const uint32_t width = 1u << order;
      const uint32_t shift = static_cast<uint32_t>(index & ((1u << per_byte_bits) - 1)) * width;
      std::byte& at = block[index >> per_byte_bits];
      at &= ~(std::byte((1u << width) - 1) << shift);
      at |= std::byte(refcount) << shift;
    }
  }
}

// What varve writes: data, zero, nothing (LT5–LT7).
static_assert(encode_l2_entry(Mapping::data_at({0x50000}), 16) == 0x8000'0000'0005'0000);
static_assert(encode_l2_entry(Mapping::plain_zero(), 16) == 1);
static_assert(encode_l2_entry(Mapping::unallocated(), 16) == 0);
// 54 bits of offset and 8 of further sectors with 64 KiB clusters.
static_assert(compressed_offset_bits(16) == 54);
static_assert(decode_l2_entry(0x40c0'0000'0005'0123, 16)->host == HostOffset{0x50123});
static_assert(decode_l2_entry(0x40c0'0000'0005'0123, 16)->sectors == 4);
static_assert(decode_l2_entry(0x40c0'0000'0005'0123, 16)->compressed_bytes() == 2048 - 0x123);
// Refused: a reserved bit, COPIED without an offset, an unaligned offset, zero in version 2.
static_assert(!decode_l2_entry(0x8000'0000'0005'0002, 16) && !decode_l2_entry(kEntryCopied, 16));
static_assert(!decode_l2_entry(0x8000'0000'0005'8000, 16) && !decode_l2_entry(1, 16, 2));

}  // namespace qcow
