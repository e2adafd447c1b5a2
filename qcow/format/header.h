// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qcow/format/format_error.h"
#include "qcow/format/geometry.h"
#include "qcow/format/record.h"

/// Cluster 0 of an image: header fields, header extensions, backing name. Pure: bytes in, values
/// out, and back.
///
/// A decoded header is one that varve can work with: every refusal that cluster 0 and the file's
/// size decide (RF1–RF14) was made. Spec: qemu docs/interop/qcow2, "General", "Header extensions";
/// docs/qcow2-rules.md, HD1–HD13, FB1–FB10, HX1–HX5.
namespace qcow {

inline constexpr uint64_t kIncompatibleDirty = 1 << 0;
inline constexpr uint64_t kIncompatibleCorrupt = 1 << 1;
inline constexpr uint64_t kIncompatibleDataFile = 1 << 2;
inline constexpr uint64_t kIncompatibleCompressionType = 1 << 3;
inline constexpr uint64_t kIncompatibleExtendedL2 = 1 << 4;
inline constexpr uint64_t kCompatibleLazyRefcounts = 1 << 0;
inline constexpr uint64_t kAutoclearBitmaps = 1 << 0;
inline constexpr uint64_t kAutoclearSeal = uint64_t{1} << 62;

inline constexpr uint32_t kExtensionEnd = 0;
inline constexpr uint32_t kExtensionBackingFormat = 0xe2792aca;
inline constexpr uint32_t kExtensionFeatureNames = 0x6803f857;
inline constexpr uint32_t kExtensionBitmaps = 0x23852875;
inline constexpr uint32_t kExtensionEncryption = 0x0537be77;
inline constexpr uint32_t kExtensionDataFile = 0x44415441;

inline constexpr size_t kBackingNameBytesMax = 1023;

/// A header extension that varve does not interpret; kept byte for byte.
struct Extension {
  uint32_t type = 0;
  std::vector<std::byte> content;  // without padding
  bool operator==(const Extension&) const = default;
};

/// One entry of the feature name table.
struct FeatureName {
  uint8_t kind = 0;  ///< 0 incompatible, 1 compatible, 2 autoclear
  uint8_t bit = 0;
  std::string name;  ///< at most 46 bytes
  bool operator==(const FeatureName&) const = default;
};

enum class CompressionType : uint8_t { deflate = 0, zstd = 1 };

struct Header {
  static constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
  static constexpr uint32_t kBytesVersion2 = 72;
  static constexpr uint32_t kBytesMin = 104;  // of version 3
  static constexpr uint32_t kBytes = 112;     // as varve and qemu write it
  // Fields that are written alone, each within one sector: the old or the new one is on the disk.
  static constexpr uint64_t kRefcountTableOffset = 48;  // offset, then clusters: 12 bytes
  static constexpr uint64_t kIncompatibleOffset = 72;
  static constexpr uint64_t kAutoclearOffset = 88;

  uint32_t version = 3;
  uint32_t cluster_bits = kClusterBitsDefault;
  uint64_t virtual_size = 0;  ///< bytes, exact
  uint32_t crypt_method = 0;
  uint32_t l1_entry_count = 0;
  HostOffset l1_table;
  HostOffset refcount_table;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  HostOffset snapshots;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = kRefcountOrderDefault;
  uint32_t header_length = kBytes;
  CompressionType compression = CompressionType::deflate;
  std::vector<std::byte> unknown_fields;  ///< header bytes behind the compression type's padding

  std::string backing_name;                   ///< empty: no parent
  std::optional<std::string> backing_format;  ///< the extension's text
  std::vector<FeatureName> feature_names;
  std::optional<Record> record;
  std::vector<Extension> other_extensions;  ///< in file order

  struct DecodeOptions {
    bool salvage = false;  ///< accept the corrupt and the dirty bit (RF7, RF8), for reading only
  };

  /// `cluster_zero` is the file's start, all of its first cluster (peek_cluster_bytes) as far as
  /// the file reaches. Throws FormatError with the texts of RF1–RF14.
  static Header decode(std::span<const std::byte> cluster_zero, uint64_t file_bytes,
                       std::string_view image_name, DecodeOptions options);
  static Header decode(std::span<const std::byte> cluster_zero, uint64_t file_bytes,
                       std::string_view image_name) {
    return decode(cluster_zero, file_bytes, image_name, DecodeOptions());
  }

  /// The size of cluster 0 by the first kBytesVersion2 bytes of a file, or 0 when they are no
  /// header that decode() would accept.
  static uint64_t peek_cluster_bytes(std::span<const std::byte> start);

  /// All of cluster 0. Throws FormatError when the parts do not fit one cluster.
  std::vector<std::byte> encode(std::string_view image_name) const;
  /// Bytes of cluster 0 that are in use; what encode() writes behind them is zeroes.
  size_t encoded_bytes() const;

  Geometry geometry() const { return {cluster_bits, refcount_order, virtual_size}; }
  bool has_backing() const { return !backing_name.empty(); }
  bool sealed() const { return (autoclear_features & kAutoclearSeal) != 0; }
  bool marked_corrupt() const { return (incompatible_features & kIncompatibleCorrupt) != 0; }

  bool operator==(const Header&) const = default;
};

/// The nine names that varve writes (HX2).
std::vector<FeatureName> standard_feature_names();

/// Throws FormatError when the image may be read but not written (RF7, RF19).
void require_writable(const Header& header, std::string_view image_name);

}  // namespace qcow
