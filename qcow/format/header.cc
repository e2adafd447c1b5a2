// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/header.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/big_endian.h"

namespace qcow {

namespace {

constexpr size_t kFeatureNameBytes = 48;
constexpr size_t kFeatureNameTextBytes = 46;
constexpr uint64_t kKnownIncompatible = 0x1f;

size_t padded(size_t bytes) { return round_up(bytes, 8); }

std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// One decode() under way: the fields, then the extensions, then the judgement on both.
class Decoder {
 public:
  Decoder(std::span<const std::byte> cluster_zero, uint64_t file_bytes, std::string_view name)
      : bytes_(cluster_zero.first(std::min<uint64_t>(cluster_zero.size(), file_bytes))),
        file_bytes_(file_bytes),
        name_(name) {}

  Header decode(Header::DecodeOptions options) {
    read_fields();
    read_extensions();
    read_backing_name();
    refuse_features(options);
    refuse_tables();
    return std::move(header_);
  }

 private:
  template <class... Arguments>
  [[noreturn]] void refuse(fmt::format_string<Arguments...> text, Arguments&&... arguments) const {
    throw FormatError(name_, fmt::format(text, std::forward<Arguments>(arguments)...));
  }

  void read_fields() {
    if (bytes_.size() < Header::kBytesVersion2) refuse("not a QCOW2 image");
    io::BigEndianReader in(bytes_);
    if (in.take<uint32_t>() != Header::kMagic) refuse("not a QCOW2 image");
    header_.version = in.take<uint32_t>();
    if (header_.version != 2 && header_.version != 3) {
      refuse("QCOW2 version {} is not supported", header_.version);
    }
    backing_name_offset_ = in.take<uint64_t>();
    backing_name_bytes_ = in.take<uint32_t>();
    header_.cluster_bits = in.take<uint32_t>();
    if (header_.cluster_bits < kClusterBitsMin || header_.cluster_bits > kClusterBitsMax) {
      refuse("cluster size 2^{} is not supported (2^{} to 2^{})", header_.cluster_bits,
             kClusterBitsMin, kClusterBitsMax);
    }
    header_.virtual_size = in.take<uint64_t>();
    header_.crypt_method = in.take<uint32_t>();
    header_.l1_entry_count = in.take<uint32_t>();
    header_.l1_table = {in.take<uint64_t>()};
    header_.refcount_table = {in.take<uint64_t>()};
    header_.refcount_table_clusters = in.take<uint32_t>();
    header_.snapshot_count = in.take<uint32_t>();
    header_.snapshots = {in.take<uint64_t>()};
    header_.header_length = Header::kBytesVersion2;
    if (header_.version >= 3) read_version_3_fields(in);
  }

  void read_version_3_fields(io::BigEndianReader& in) {
    if (in.left() < Header::kBytesMin - Header::kBytesVersion2) refuse("not a QCOW2 image");
    header_.incompatible_features = in.take<uint64_t>();
    header_.compatible_features = in.take<uint64_t>();
    header_.autoclear_features = in.take<uint64_t>();
    header_.refcount_order = in.take<uint32_t>();
    header_.header_length = in.take<uint32_t>();
    const uint32_t length = header_.header_length;
    const uint64_t cluster_bytes = uint64_t{1} << header_.cluster_bits;
    if (length < Header::kBytesMin || length % 8 != 0 || length > cluster_bytes ||
        length > bytes_.size()) {
      refuse("invalid header length {}", length);
    }
    if (length > Header::kBytesMin) {
      compression_type_ = in.take<uint8_t>();
      in.skip(7);
    }
    if (length > Header::kBytes) {
      const auto unknown = in.take_bytes(length - Header::kBytes);
      header_.unknown_fields.assign(unknown.begin(), unknown.end());
    }
  }

  void read_extensions() {
    const uint64_t cluster_end =
        std::min<uint64_t>(uint64_t{1} << header_.cluster_bits, bytes_.size());
    const uint64_t end = backing_name_offset_ != 0
                             ? std::min<uint64_t>(backing_name_offset_, cluster_end)
                             : cluster_end;
    uint64_t at = header_.header_length;
    while (at < end && end - at >= 8) {
      const uint32_t type = io::load_be<uint32_t>(&bytes_[at]);
      const uint64_t length = io::load_be<uint32_t>(&bytes_[at + 4]);
      if (type == kExtensionEnd) return;
      if (length > end - at - 8) refuse("header extension at {} is too long", at);
      read_extension(type, bytes_.subspan(at + 8, length));
      at += 8 + padded(length);
    }
  }

  void read_extension(uint32_t type, std::span<const std::byte> content) {
    const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
    if (type == kExtensionBackingFormat) {
      header_.backing_format = std::string(text);
    } else if (type == kExtensionFeatureNames) {
      read_feature_names(content);
    } else if (type == Record::kExtensionType && content.size() >= Record::kBytes) {
      header_.record = Record::decode(content);
    } else {
      if (type == kExtensionDataFile) has_data_file_extension_ = true;
      if (type == kExtensionEncryption) has_encryption_extension_ = true;
      header_.other_extensions.push_back({type, {content.begin(), content.end()}});
    }
  }

  void read_feature_names(std::span<const std::byte> content) {
    io::BigEndianReader in(content);
    while (in.left() >= kFeatureNameBytes) {
      FeatureName entry;
      entry.kind = in.take<uint8_t>();
      entry.bit = in.take<uint8_t>();
      const std::string_view padded_name = in.take_text(kFeatureNameTextBytes);
      entry.name = padded_name.substr(0, padded_name.find('\0'));
      header_.feature_names.push_back(std::move(entry));
    }
  }

  void read_backing_name() {
    if (backing_name_offset_ == 0) return;
    const uint64_t cluster_end =
        std::min<uint64_t>(uint64_t{1} << header_.cluster_bits, bytes_.size());
    if (backing_name_bytes_ > kBackingNameBytesMax || backing_name_offset_ > cluster_end ||
        backing_name_bytes_ > cluster_end - backing_name_offset_ ||
        backing_name_offset_ < header_.header_length) {
      refuse("backing file name is invalid");
    }
    io::BigEndianReader in(bytes_.subspan(backing_name_offset_));
    header_.backing_name = in.take_text(backing_name_bytes_);
    if (header_.backing_name.find('\0') != std::string::npos) {
      refuse("backing file name is invalid");
    }
  }

  void refuse_features(Header::DecodeOptions options) {
    const uint64_t incompatible = header_.incompatible_features;
    for (uint32_t bit = 0; bit < 64; ++bit) {
      if ((incompatible & ~kKnownIncompatible & (uint64_t{1} << bit)) != 0) {
        refuse("unsupported feature \"{}\" (incompatible bit {})", incompatible_name(bit), bit);
      }
    }
    if (header_.crypt_method != 0 || has_encryption_extension_) {
      refuse("encrypted images are not supported (method {})", header_.crypt_method);
    }
    if ((incompatible & kIncompatibleDataFile) != 0 || has_data_file_extension_) {
      refuse("external data files are not supported");
    }
    if ((incompatible & kIncompatibleExtendedL2) != 0) {
      refuse("extended L2 entries are not supported");
    }
    const bool type_is_named = (incompatible & kIncompatibleCompressionType) != 0;
    if (compression_type_ > 1 || type_is_named != (compression_type_ == 1)) {
      refuse("invalid compression type {}", compression_type_);
    }
    header_.compression = static_cast<CompressionType>(compression_type_);
    if (header_.refcount_order > kRefcountOrderMax) {
      refuse("refcount width 2^{} is not supported", header_.refcount_order);
    }
    if (header_.marked_corrupt() && !options.salvage) refuse("marked corrupt");
    if ((incompatible & kIncompatibleDirty) != 0 && !options.salvage) {
      refuse("not closed cleanly (dirty bit set); run \"qemu-img check -r all\" on it first");
    }
  }

  std::string incompatible_name(uint32_t bit) const {
    for (const FeatureName& entry : header_.feature_names) {
      if (entry.kind == 0 && entry.bit == bit) return entry.name;
    }
    return "unknown";
  }

  void refuse_tables() const {
    const uint64_t l1_bytes = uint64_t{header_.l1_entry_count} * 8;
    if (l1_bytes > kL1BytesMax) refuse("L1 table is too large");
    if (header_.l1_entry_count < header_.geometry().l1_entries()) {
      refuse("L1 table is too small");
    }
    if (l1_bytes > 0) refuse_place("L1 table", header_.l1_table, l1_bytes);

    const uint64_t table_bytes = uint64_t{header_.refcount_table_clusters} << header_.cluster_bits;
    if (table_bytes > kRefcountTableBytesMax) refuse("refcount table is too large");
    if (table_bytes == 0) refuse("refcount table is too small");
    refuse_place("refcount table", header_.refcount_table, table_bytes);
  }

  // The last cluster of a file may be short (LT11), so the file is taken as a whole of clusters.
  void refuse_place(std::string_view table, HostOffset at, uint64_t table_bytes) const {
    const uint64_t cluster_bytes = uint64_t{1} << header_.cluster_bits;
    const uint64_t end = round_up(file_bytes_, cluster_bytes);
    if (at.bytes == 0 || at.bytes % cluster_bytes != 0 || at.bytes > end ||
        table_bytes > end - at.bytes) {
      refuse("{} offset {} is invalid", table, uint64_t{at.bytes});
    }
  }

  std::span<const std::byte> bytes_;
  uint64_t file_bytes_;
  std::string_view name_;
  Header header_;
  uint64_t backing_name_offset_ = 0;
  uint32_t backing_name_bytes_ = 0;
  uint32_t compression_type_ = 0;
  bool has_data_file_extension_ = false;
  bool has_encryption_extension_ = false;
};

std::vector<std::byte> encode_feature_names(const std::vector<FeatureName>& names) {
  std::vector<std::byte> content(names.size() * kFeatureNameBytes);
  io::BigEndianWriter out(content);
  for (const FeatureName& entry : names) {
    const std::string_view text = std::string_view(entry.name).substr(0, kFeatureNameTextBytes);
    out.put(entry.kind).put(entry.bit).put_text(text);
    out.put_zeroes(kFeatureNameTextBytes - text.size());
  }
  return content;
}

/// All extensions in the order in which they are written, the end marker left out.
std::vector<Extension> extensions_of(const Header& header) {
  std::vector<Extension> all;
  if (header.backing_format) {
    const auto text = as_bytes(*header.backing_format);
    all.push_back({kExtensionBackingFormat, {text.begin(), text.end()}});
  }
  if (!header.feature_names.empty()) {
    all.push_back({kExtensionFeatureNames, encode_feature_names(header.feature_names)});
  }
  if (header.record) all.push_back({Record::kExtensionType, header.record->encode()});
  all.insert(all.end(), header.other_extensions.begin(), header.other_extensions.end());
  return all;
}

size_t bytes_before_backing_name(const Header& header) {
  size_t bytes = header.header_length;
  for (const Extension& extension : extensions_of(header)) {
    bytes += 8 + padded(extension.content.size());
  }
  return bytes + 8;
}

void put_fields(const Header& header, uint64_t backing_name_offset, io::BigEndianWriter& out) {
  out.put(Header::kMagic).put(header.version);
  out.put(header.has_backing() ? backing_name_offset : uint64_t{0});
  out.put(static_cast<uint32_t>(header.backing_name.size()));
  out.put(header.cluster_bits).put(header.virtual_size).put(header.crypt_method);
  out.put(header.l1_entry_count).put(header.l1_table.bytes);
  out.put(header.refcount_table.bytes).put(header.refcount_table_clusters);
  out.put(header.snapshot_count).put(header.snapshots.bytes);
  if (header.version < 3) return;
  out.put(header.incompatible_features).put(header.compatible_features);
  out.put(header.autoclear_features).put(header.refcount_order).put(header.header_length);
  if (header.header_length > Header::kBytesMin) {
    out.put(static_cast<uint8_t>(header.compression)).put_zeroes(7);
  }
  out.put_bytes(header.unknown_fields);
}

}  // namespace

Header Header::decode(std::span<const std::byte> cluster_zero, uint64_t file_bytes,
                      std::string_view image_name, DecodeOptions options) {
  return Decoder(cluster_zero, file_bytes, image_name).decode(options);
}

uint64_t Header::peek_cluster_bytes(std::span<const std::byte> start) {
  if (start.size() < kBytesVersion2 || io::load_be<uint32_t>(start.data()) != kMagic) return 0;
  const uint32_t cluster_bits = io::load_be<uint32_t>(&start[20]);
  if (cluster_bits < kClusterBitsMin || cluster_bits > kClusterBitsMax) return 0;
  return uint64_t{1} << cluster_bits;
}

size_t Header::encoded_bytes() const {
  return bytes_before_backing_name(*this) + backing_name.size();
}

std::vector<std::byte> Header::encode(std::string_view image_name) const {
  const uint64_t cluster_bytes = uint64_t{1} << cluster_bits;
  if (backing_name.size() > kBackingNameBytesMax || encoded_bytes() > cluster_bytes) {
    throw FormatError(image_name, "backing file name is invalid");
  }
  std::vector<std::byte> cluster(cluster_bytes);
  io::BigEndianWriter out(cluster);
  put_fields(*this, bytes_before_backing_name(*this), out);
  for (const Extension& extension : extensions_of(*this)) {
    const size_t bytes = extension.content.size();
    out.put(extension.type).put(static_cast<uint32_t>(bytes)).put_bytes(extension.content);
    out.put_zeroes(padded(bytes) - bytes);
  }
  out.put_zeroes(8);  // the end extension
  out.put_text(backing_name);
  return cluster;
}

std::vector<FeatureName> standard_feature_names() {
  return {{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
          {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
          {2, 0, "bitmaps"},          {2, 1, "raw external data"},   {2, 62, "varve seal"}};
}

void require_writable(const Header& header, std::string_view image_name) {
  if (header.marked_corrupt()) throw FormatError(image_name, "marked corrupt");
  if (header.snapshot_count > 0) {
    throw FormatError(image_name, fmt::format("has {} internal snapshots", header.snapshot_count));
  }
  if (header.record && !header.record->may_be_rewritten()) {
    throw FormatError(image_name, fmt::format("has a varve record of version {}, made by a newer "
                                              "varve; it can be read",
                                              header.record->version));
  }
}

}  // namespace qcow
