// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/header.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::refusal_of;

constexpr uint64_t kFileBytes = 1 << 20;

Header example() {
  Header header;
  header.virtual_size = 5'368'709'121;
  header.l1_entry_count = 11;
  header.l1_table = {0x30000};
  header.refcount_table = {0x10000};
  header.refcount_table_clusters = 1;
  header.backing_name = "backup-pgtest1-disk0-20251008-085454.qcow2";
  header.backing_format = "qcow2";
  header.feature_names = standard_feature_names();
  Record record;
  record.image_uuid.fill(std::byte{0x11});
  record.parent_uuid.fill(std::byte{0x22});
  record.manifest_hash.fill(std::byte{0x33});
  record.parent_manifest_hash.fill(std::byte{0x44});
  record.publish_time = 1'759'914'000;
  header.record = record;
  return header;
}

Header decode(const Bytes& cluster) { return Header::decode(cluster, kFileBytes, "a.qcow2"); }

/// The refusal of the example with one field of its encoding changed.
template <std::unsigned_integral T>
std::string refusal_with(uint64_t offset, T value, uint64_t file_bytes = kFileBytes) {
  Bytes cluster = example().encode("a.qcow2");
  io::store_be(&cluster[offset], value);
  return refusal_of([&] { Header::decode(cluster, file_bytes, "a.qcow2"); });
}

TEST(HeaderCodec, RoundTripsEveryPart) {
  Header header = example();
  header.compatible_features = kCompatibleLazyRefcounts;
  header.autoclear_features = kAutoclearSeal;
  header.other_extensions.push_back({0x12345678, Bytes(13, std::byte{0x5a})});
  header.other_extensions.push_back({kExtensionBitmaps, Bytes(24, std::byte{1})});
  header.header_length = 120;
  header.unknown_fields = Bytes(8, std::byte{0x77});
  EXPECT_EQ(decode(header.encode("a.qcow2")), header);
}

TEST(HeaderCodec, PutsTheBackingNameDirectlyBehindTheExtensions) {
  const Bytes cluster = example().encode("a.qcow2");
  // 112 header, 16 backing format, 440 names, 120 record, 8 end.
  EXPECT_EQ(io::load_be<uint64_t>(&cluster[8]), 112u + 16 + 440 + 120 + 8);
  EXPECT_EQ(example().encoded_bytes(), 696 + example().backing_name.size());
  EXPECT_TRUE(std::all_of(cluster.begin() + 738, cluster.end(),
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST(HeaderCodec, KeepsARecordOfALaterVersionByteForByte) {
  Header header = example();
  header.record->version = 2;
  header.record->flags = 0xff00;
  header.record->beyond = Bytes(16, std::byte{9});
  const Header decoded = decode(header.encode("a.qcow2"));
  EXPECT_EQ(decoded.record, header.record);
  EXPECT_NE(qcow_test::refusal_of([&] { require_writable(decoded, "a.qcow2"); })
                .find("record of version 2, made by a newer varve"),
            std::string::npos);
}

TEST(HeaderCodec, DoesNotEncodeWhatDoesNotFitClusterZero) {
  Header header = example();
  header.cluster_bits = 9;
  EXPECT_EQ(refusal_of([&] { static_cast<void>(header.encode("a.qcow2")); }),
            "\"a.qcow2\": backing file name is invalid");
}

TEST(HeaderCodec, RecordHasItsFieldsWhereTheReferenceSays) {
  const Bytes content = example().record->encode();
  ASSERT_EQ(content.size(), Record::kBytes);
  EXPECT_EQ(io::load_be<uint32_t>(&content[0]), 1u);
  EXPECT_EQ(content[8], std::byte{0x11});
  EXPECT_EQ(content[24], std::byte{0x22});
  EXPECT_EQ(content[40], std::byte{0x33});
  EXPECT_EQ(content[72], std::byte{0x44});
  EXPECT_EQ(io::load_be<uint64_t>(&content[104]), 1'759'914'000u);
}

TEST(HeaderRefusal, Rf1TakesOnlyQcow2Files) {
  EXPECT_EQ(refusal_with<uint32_t>(0, 0x514649fa), "\"a.qcow2\": not a QCOW2 image");
  for (size_t bytes = 0; bytes < 72; ++bytes) {
    const Bytes whole = example().encode("a.qcow2");
    const Bytes cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
    EXPECT_EQ(refusal_of([&] { Header::decode(cut, cut.size(), "a.qcow2"); }),
              "\"a.qcow2\": not a QCOW2 image");
  }
}

TEST(HeaderRefusal, EveryTruncationIsRefused) {
  const Bytes whole = example().encode("a.qcow2");
  for (size_t bytes = 72; bytes < 0x30000 + 88; bytes += bytes < 800 ? 1 : 4093) {
    Bytes cut = whole;
    if (bytes < cut.size()) cut.resize(bytes);
    // The file may end inside its last cluster, which is L1's here.
    if (bytes > 0x30000) continue;
    EXPECT_NE(refusal_of([&] { Header::decode(cut, bytes, "a.qcow2"); }), "(not refused)") << bytes;
  }
}

TEST(HeaderRefusal, Rf2NamesTheVersion) {
  EXPECT_EQ(refusal_with<uint32_t>(4, 1), "\"a.qcow2\": QCOW2 version 1 is not supported");
  EXPECT_EQ(refusal_with<uint32_t>(4, 4), "\"a.qcow2\": QCOW2 version 4 is not supported");
}

TEST(HeaderRefusal, Rf3NamesTheClusterSize) {
  EXPECT_EQ(refusal_with<uint32_t>(20, 8),
            "\"a.qcow2\": cluster size 2^8 is not supported (2^9 to 2^21)");
  EXPECT_EQ(refusal_with<uint32_t>(20, 22),
            "\"a.qcow2\": cluster size 2^22 is not supported (2^9 to 2^21)");
}

TEST(HeaderRefusal, Rf4Encryption) {
  EXPECT_EQ(refusal_with<uint32_t>(32, 2),
            "\"a.qcow2\": encrypted images are not supported (method 2)");
  Header header = example();
  header.other_extensions.push_back({kExtensionEncryption, Bytes(16)});
  EXPECT_EQ(refusal_of([&] { decode(header.encode("a")); }),
            "\"a.qcow2\": encrypted images are not supported (method 0)");
}

TEST(HeaderRefusal, Rf5HeaderLength) {
  for (const uint32_t length : {0u, 96u, 105u, 110u, 65544u, 0xfffffff8u}) {
    EXPECT_EQ(refusal_with<uint32_t>(100, length),
              "\"a.qcow2\": invalid header length " + std::to_string(length));
  }
}

TEST(HeaderRefusal, Rf6NamesTheFeatureFromTheFilesOwnTable) {
  Header header = example();
  header.incompatible_features = uint64_t{1} << 40;
  EXPECT_EQ(refusal_of([&] { decode(header.encode("a")); }),
            "\"a.qcow2\": unsupported feature \"unknown\" (incompatible bit 40)");
  header.feature_names.push_back({0, 40, "flux"});
  EXPECT_EQ(refusal_of([&] { decode(header.encode("a")); }),
            "\"a.qcow2\": unsupported feature \"flux\" (incompatible bit 40)");
}

TEST(HeaderRefusal, Rf7CorruptIsReadOnlyForSalvage) {
  Header header = example();
  header.incompatible_features = kIncompatibleCorrupt;
  const Bytes cluster = header.encode("a.qcow2");
  EXPECT_EQ(refusal_of([&] { decode(cluster); }), "\"a.qcow2\": marked corrupt");
  const Header salvaged =
      Header::decode(cluster, kFileBytes, "a.qcow2", Header::DecodeOptions{.salvage = true});
  EXPECT_EQ(refusal_of([&] { require_writable(salvaged, "a.qcow2"); }),
            "\"a.qcow2\": marked corrupt");
}

TEST(HeaderRefusal, Rf8Dirty) {
  EXPECT_EQ(refusal_with<uint64_t>(72, 1),
            "\"a.qcow2\": not closed cleanly (dirty bit set); run \"qemu-img check -r all\" on it "
            "first");
}

TEST(HeaderRefusal, Rf9ExternalDataFile) {
  EXPECT_EQ(refusal_with<uint64_t>(72, 4), "\"a.qcow2\": external data files are not supported");
  Header header = example();
  header.other_extensions.push_back({kExtensionDataFile, Bytes(4)});
  EXPECT_EQ(refusal_of([&] { decode(header.encode("a")); }),
            "\"a.qcow2\": external data files are not supported");
}

TEST(HeaderRefusal, Rf10CompressionTypeAndItsBitGoTogether) {
  EXPECT_EQ(refusal_with<uint64_t>(72, 8), "\"a.qcow2\": invalid compression type 0");
  EXPECT_EQ(refusal_with<uint8_t>(104, 1), "\"a.qcow2\": invalid compression type 1");
  EXPECT_EQ(refusal_with<uint8_t>(104, 2), "\"a.qcow2\": invalid compression type 2");
  Header header = example();
  header.incompatible_features = kIncompatibleCompressionType;
  header.compression = CompressionType::zstd;
  EXPECT_EQ(decode(header.encode("a")).compression, CompressionType::zstd);
}

TEST(HeaderRefusal, Rf11ExtendedL2) {
  EXPECT_EQ(refusal_with<uint64_t>(72, 16), "\"a.qcow2\": extended L2 entries are not supported");
}

TEST(HeaderRefusal, Rf12L1Table) {
  EXPECT_EQ(refusal_with<uint32_t>(36, (32 << 20) / 8 + 1), "\"a.qcow2\": L1 table is too large");
  EXPECT_EQ(refusal_with<uint32_t>(36, 10), "\"a.qcow2\": L1 table is too small");
  EXPECT_EQ(refusal_with<uint64_t>(40, 0x30200), "\"a.qcow2\": L1 table offset 197120 is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(40, 0), "\"a.qcow2\": L1 table offset 0 is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(40, 0x100000),
            "\"a.qcow2\": L1 table offset 1048576 is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(40, 0xffff'ffff'ffff'0000),
            "\"a.qcow2\": L1 table offset 18446744073709486080 is invalid");
}

TEST(HeaderRefusal, Rf12RefcountTable) {
  EXPECT_EQ(refusal_with<uint32_t>(56, 129), "\"a.qcow2\": refcount table is too large");
  EXPECT_EQ(refusal_with<uint32_t>(56, 0), "\"a.qcow2\": refcount table is too small");
  EXPECT_EQ(refusal_with<uint64_t>(48, 0x10008),
            "\"a.qcow2\": refcount table offset 65544 is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(48, 0), "\"a.qcow2\": refcount table offset 0 is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(48, 0x200000),
            "\"a.qcow2\": refcount table offset 2097152 is invalid");
}

TEST(HeaderRefusal, Rf13RefcountWidth) {
  EXPECT_EQ(refusal_with<uint32_t>(96, 7), "\"a.qcow2\": refcount width 2^7 is not supported");
}

TEST(HeaderRefusal, Rf14ExtensionsAndNamesStayInClusterZero) {
  EXPECT_EQ(refusal_with<uint32_t>(116, 65000), "\"a.qcow2\": header extension at 112 is too long");
  EXPECT_EQ(refusal_with<uint32_t>(132, 0xffffffff),
            "\"a.qcow2\": header extension at 128 is too long");
  EXPECT_EQ(refusal_with<uint32_t>(16, 1024), "\"a.qcow2\": backing file name is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(8, 65530), "\"a.qcow2\": backing file name is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(8, 0x10000), "\"a.qcow2\": backing file name is invalid");
  EXPECT_EQ(refusal_with<uint64_t>(8, ~uint64_t{0}), "\"a.qcow2\": backing file name is invalid");
}

TEST(HeaderRefusal, Rf19SnapshotsAreReadAndNotWritten) {
  Header header = example();
  header.snapshot_count = 2;
  header.snapshots = {0x50000};
  const Header decoded = decode(header.encode("a"));
  EXPECT_EQ(refusal_of([&] { require_writable(decoded, "a.qcow2"); }),
            "\"a.qcow2\": has 2 internal snapshots");
}

class HeaderOfQemu : public qcow_test::ImageFiles {};

TEST_F(HeaderOfQemu, IsReadFieldByField) {
  qemu_img("create -f qcow2 base.qcow2 5G");
  qemu_img("create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 6G");
  const Header base = header("base.qcow2");
  EXPECT_EQ(base.version, 3u);
  EXPECT_EQ(base.virtual_size, uint64_t{5} << 30);
  EXPECT_EQ(base.l1_entry_count, 10u);
  EXPECT_EQ(base.l1_table, HostOffset{0x30000});
  EXPECT_EQ(base.refcount_table, HostOffset{0x10000});
  EXPECT_EQ(base.header_length, 112u);
  EXPECT_FALSE(base.has_backing());
  EXPECT_FALSE(base.backing_format);
  const Header top = header("top.qcow2");
  EXPECT_EQ(top.backing_name, "base.qcow2");
  EXPECT_EQ(top.backing_format, "qcow2");
}

// The strongest golden: what decode() and encode() make of qemu's own cluster 0 are its bytes.
TEST_F(HeaderOfQemu, IsEncodedAgainToItsOwnBytes) {
  qemu_img("create -f qcow2 base.qcow2 5G");
  qemu_img("create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 6G");
  qemu_img("create -f qcow2 -o compat=0.10 old.qcow2 100M");
  qemu_img("create -f qcow2 -o compression_type=zstd,lazy_refcounts=on zstd.qcow2 100M");
  for (const std::string name : {"base.qcow2", "top.qcow2", "old.qcow2", "zstd.qcow2"}) {
    const Bytes content = qcow_test::read_file(file(name));
    const Bytes cluster(content.begin(), content.begin() + 65536);
    EXPECT_EQ(header(name).encode(name), cluster) << name;
  }
}

TEST_F(HeaderOfQemu, RefusesWhatQemuCanMakeAndVarveCannotRead) {
  qemu_img("create -f qcow2 -o extended_l2=on ext.qcow2 10M");
  EXPECT_EQ(refusal_of([&] { open_chain("ext.qcow2"); }),
            "\"ext.qcow2\": extended L2 entries are not supported");
  qemu_img("create -f qcow2 -o data_file=data.raw data.qcow2 10M");
  EXPECT_EQ(refusal_of([&] { open_chain("data.qcow2"); }),
            "\"data.qcow2\": external data files are not supported");
  qemu_img(
      "create --object secret,id=s,data=x -f qcow2 -o "
      "encrypt.format=aes,"
      "encrypt.key-secret=s "
      "aes.qcow2 10M");
  EXPECT_EQ(refusal_of([&] { open_chain("aes.qcow2"); }),
            "\"aes.qcow2\": encrypted images are not supported (method 1)");
  qcow_test::write_file(file("empty"), Bytes());
  EXPECT_EQ(refusal_of([&] { open_chain("empty"); }), "\"empty\": not a QCOW2 image");
}

}  // namespace
}  // namespace qcow
