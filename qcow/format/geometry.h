// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <type_traits>

/// Where things are in a QCOW2 image: pure arithmetic, no bytes and no I/O.
///
/// Spec: qemu docs/interop/qcow2, "Host cluster management" and "Cluster mapping". Extended L2
/// entries are refused on open, so an L2 entry is always 8 bytes here.
namespace qcow {

/// A place on the virtual disk.
struct GuestOffset {
  uint64_t bytes = 0;
  auto operator<=>(const GuestOffset&) const = default;
};

/// A place in the image file. 0 is the header, so 0 in a table means "nothing".
struct HostOffset {
  uint64_t bytes = 0;
  auto operator<=>(const HostOffset&) const = default;
  explicit constexpr operator bool() const { return bytes != 0; }
};

/// A cluster's number, counted from the start of the disk or of the file; the two do not mix. The
/// difference of two is a count.
template <class Offset>
struct ClusterIndex {
  uint64_t index = 0;

  constexpr ClusterIndex& operator+=(uint64_t count) {
    index += count;
    return *this;
  }
  constexpr ClusterIndex& operator++() { return *this += 1; }
  constexpr ClusterIndex operator++(int) { return {index++}; }
  constexpr ClusterIndex operator+(uint64_t count) const { return {index + count}; }
  constexpr ClusterIndex operator-(uint64_t count) const { return {index - count}; }
  constexpr uint64_t operator-(ClusterIndex from) const { return index - from.index; }
  auto operator<=>(const ClusterIndex&) const = default;
};
using GuestCluster = ClusterIndex<GuestOffset>;
using HostCluster = ClusterIndex<HostOffset>;
static_assert(!std::is_constructible_v<GuestCluster, HostCluster>);
static_assert(std::is_trivially_copyable_v<HostCluster> && sizeof(HostCluster) == 8);

inline constexpr uint32_t kClusterBitsMin = 9;
inline constexpr uint32_t kClusterBitsMax = 21;
inline constexpr uint32_t kClusterBitsDefault = 16;
inline constexpr uint32_t kRefcountOrderDefault = 4;
inline constexpr uint32_t kRefcountOrderMax = 6;
inline constexpr uint64_t kL1BytesMax = 32 << 20;            // qemu's limit
inline constexpr uint64_t kRefcountTableBytesMax = 8 << 20;  // qemu's limit
inline constexpr uint64_t kHostOffsetEnd = uint64_t{1} << 56;

constexpr uint64_t divide_up(uint64_t value, uint64_t by) {
  return value / by + (value % by != 0 ? 1 : 0);
}
constexpr uint64_t round_up(uint64_t value, uint64_t unit) { return divide_up(value, unit) * unit; }
constexpr uint64_t round_down(uint64_t value, uint64_t unit) { return value / unit * unit; }

/// The three numbers that decide the place of everything else.
struct Geometry {
  uint32_t cluster_bits = kClusterBitsDefault;
  uint32_t refcount_order = kRefcountOrderDefault;  ///< a refcount is 2^order bits wide
  uint64_t virtual_size = 0;                        ///< bytes of the disk, exact

  constexpr uint64_t cluster_bytes() const { return uint64_t{1} << cluster_bits; }
  constexpr uint64_t clusters_for(uint64_t bytes) const {
    return divide_up(bytes, cluster_bytes());
  }
  constexpr uint64_t offset_in_cluster(uint64_t bytes) const {
    return bytes & (cluster_bytes() - 1);
  }

  // The guest's side: L1 → L2 → cluster.
  constexpr uint64_t l2_entries() const { return cluster_bytes() / 8; }
  constexpr uint64_t l2_table_guest_bytes() const { return l2_entries() << cluster_bits; }
  constexpr uint64_t guest_clusters() const { return clusters_for(virtual_size); }
  constexpr uint64_t l1_entries() const { return divide_up(virtual_size, l2_table_guest_bytes()); }
  constexpr uint64_t l1_clusters() const { return clusters_for(l1_entries() * 8); }

  constexpr GuestCluster cluster_of(GuestOffset at) const { return {at.bytes >> cluster_bits}; }
  constexpr GuestOffset start_of(GuestCluster cluster) const {
    return {cluster.index << cluster_bits};
  }
  constexpr uint64_t l1_index(GuestCluster cluster) const { return cluster.index / l2_entries(); }
  constexpr uint64_t l2_index(GuestCluster cluster) const {
    return cluster.index & (l2_entries() - 1);
  }
  /// The first cluster in an L2 table's range.
  constexpr GuestCluster table_start(uint64_t l1_index) const { return {l1_index * l2_entries()}; }
  constexpr uint64_t clusters_to_table_end(GuestCluster cluster) const {
    return l2_entries() - l2_index(cluster);
  }

  // The file's side: refcount table → refcount block → refcount.
  constexpr HostCluster cluster_of(HostOffset at) const { return {at.bytes >> cluster_bits}; }
  constexpr HostOffset start_of(HostCluster cluster) const {
    return {cluster.index << cluster_bits};
  }
  constexpr uint64_t refcounts_per_block() const { return (cluster_bytes() * 8) >> refcount_order; }
  constexpr uint64_t refcount_max() const {
    return refcount_order >= 6 ? ~uint64_t{0} : (uint64_t{1} << (1 << refcount_order)) - 1;
  }
  constexpr uint64_t refcount_table_index(HostCluster cluster) const {
    return cluster.index / refcounts_per_block();
  }
  constexpr uint64_t refcount_index_in_block(HostCluster cluster) const {
    return cluster.index & (refcounts_per_block() - 1);
  }
  /// The first cluster in a refcount block's range.
  constexpr HostCluster block_start(uint64_t refcount_table_index) const {
    return {refcount_table_index * refcounts_per_block()};
  }
  constexpr uint64_t refcount_table_entries_per_cluster() const { return cluster_bytes() / 8; }

  /// Host clusters of an image in which every guest cluster is stored, its refcount structures
  /// not counted: header, L1, L2 tables, data.
  constexpr uint64_t clusters_without_refcounts() const {
    return 1 + l1_clusters() + l1_entries() + guest_clusters();
  }

  /// Clusters of a refcount table that never has to move: it covers every guest cluster and all
  /// metadata, itself and its blocks included.
  constexpr uint64_t refcount_table_clusters() const {
    uint64_t table = 1;
    for (uint64_t blocks = 1;;) {
      const uint64_t covered = clusters_without_refcounts() + table + blocks;
      const uint64_t blocks_needed = divide_up(covered, refcounts_per_block());
      const uint64_t table_needed =
          std::max<uint64_t>(1, divide_up(blocks_needed, refcount_table_entries_per_cluster()));
      if (blocks_needed <= blocks && table_needed <= table) return table;
      blocks = std::max(blocks, blocks_needed);
      table = std::max(table, table_needed);
    }
  }

  auto operator<=>(const Geometry&) const = default;
};

namespace geometry_examples {

inline constexpr uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;

// A 5 GiB disk with 64 KiB clusters, as qemu-img creates it: ten L2 tables of 512 MiB each.
inline constexpr Geometry kFiveGiB{16, 4, 5 * kGiB};
static_assert(kFiveGiB.l2_entries() == 8192 && kFiveGiB.l2_table_guest_bytes() == 512 * kMiB);
static_assert(kFiveGiB.l1_entries() == 10 && kFiveGiB.l1_clusters() == 1);
static_assert(kFiveGiB.refcounts_per_block() == 32768 && kFiveGiB.refcount_max() == 65535);
static_assert(kFiveGiB.refcount_table_clusters() == 1);
static_assert(kFiveGiB.cluster_of(GuestOffset{512 * kMiB - 1}) == GuestCluster{8191});
static_assert(kFiveGiB.l1_index({8191}) == 0 && kFiveGiB.l2_index({8191}) == 8191);
static_assert(kFiveGiB.l1_index({8192}) == 1 && kFiveGiB.l2_index({8192}) == 0);
static_assert(kFiveGiB.clusters_to_table_end({8191}) == 1);
static_assert(kFiveGiB.start_of(kFiveGiB.table_start(1) + 2).bytes == 512 * kMiB + 128 * kKiB);
static_assert(kFiveGiB.refcount_table_index({32769}) == 1);
static_assert(kFiveGiB.block_start(1) == HostCluster{32768});

// One cluster of table covers 8,192 blocks × 2 GiB = 16 TiB of file, so a 16 TiB disk needs two.
static_assert(Geometry{16, 4, 15 * kTiB}.refcount_table_clusters() == 1);
static_assert(Geometry{16, 4, 16 * kTiB}.refcount_table_clusters() == 2);
static_assert(Geometry{16, 4, 64 * kTiB}.l1_clusters() == 16);

// A disk that is no multiple of a cluster still has its last cluster.
static_assert(Geometry{16, 4, 512 * kMiB + 1}.guest_clusters() == 8193);
static_assert(Geometry{16, 4, 512 * kMiB + 1}.l1_entries() == 2);

// The smallest clusters: 64 entries of 512 bytes a table; 64-bit refcounts, 64 of them a block.
inline constexpr Geometry kTiny{9, 6, kMiB};
static_assert(kTiny.l2_table_guest_bytes() == 32 * kKiB && kTiny.l1_entries() == 32);
static_assert(kTiny.refcounts_per_block() == 64 && kTiny.refcount_max() == ~uint64_t{0});
static_assert(kTiny.clusters_without_refcounts() == 1 + 1 + 32 + 2048);
static_assert(kTiny.refcount_table_clusters() == 1);
static_assert(Geometry{9, 0, kMiB}.refcount_max() == 1);

}  // namespace geometry_examples

}  // namespace qcow
