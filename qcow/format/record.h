// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qcow {

using Uuid = std::array<std::byte, 16>;
using Sha256 = std::array<std::byte, 32>;

/// "0199c2f4-7a10-7b61-a3c9-3f0c52d6e7aa".
std::string uuid_text(const Uuid& uuid);
/// The other way. Throws std::invalid_argument for other text.
Uuid uuid_from_text(std::string_view text);

/// The varve record: the header extension that says which image this is and on which it was made
/// (HX3, VR1–VR7). qemu keeps extensions that it does not know, so it survives every qemu command.
///
/// The sidecar is authoritative; the record lets a catalogue be rebuilt by a scan and catches
/// swapped files. Pure.
struct Record {
  static constexpr uint32_t kExtensionType = 0x76617276;  // "varv"
  static constexpr size_t kBytes = 112;
  static constexpr uint32_t kVersion = 1;
  static constexpr uint32_t kFlagFullImage = 1 << 0;
  static constexpr uint32_t kFlagPublished = 1 << 1;

  uint32_t version = kVersion;
  uint32_t flags = 0;
  Uuid image_uuid{};
  Uuid parent_uuid{};             ///< zeroes for a full image
  Sha256 manifest_hash{};         ///< of this image's sidecar; zeroes until publish
  Sha256 parent_manifest_hash{};  ///< zeroes for a full image
  uint64_t publish_time = 0;      ///< seconds since 1970, 0 until publish
  std::vector<std::byte> beyond;  ///< what a later version added, kept byte for byte

  bool full_image() const { return (flags & kFlagFullImage) != 0; }
  bool published() const { return (flags & kFlagPublished) != 0; }
  /// A record of a later version is read as far as known and never changed.
  bool may_be_rewritten() const { return version == kVersion; }

  /// Throws std::out_of_range when `content` is shorter than kBytes.
  static Record decode(std::span<const std::byte> content);
  std::vector<std::byte> encode() const;
  bool operator==(const Record&) const = default;
};

}  // namespace qcow
