// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>

#include "qcow/chain/sums_reader.h"
#include "qcow/check/check_content.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

/// Overlays whose parents have manifests; what is written again is not stored.
class Elisions : public qcow_test::ImageModel {
 protected:
  static std::string sums_of(std::string_view image) { return std::string(image) + ".sums"; }

  void open_eliding(const std::string& name) {
    ImageOptions options;
    options.sums_path = sums_of(file(name));
    options.elide_by = sums_of;
    open(name, options);
  }

  void publish() {
    counters_ = run(image_->seal()).counters;
    run(image_->publish_header(Sha256{std::byte{1}}, 1'700'000'000));
    close();
  }

  /// A published full image of random bytes, with zeroes from its middle on.
  void publish_base(uint64_t size = 4 << 20, const std::string& name = "base.qcow2") {
    create(name, {.size = size});
    open_eliding(name);
    write_random(0, size / 2);
    publish();
  }

  void open_overlay(const std::string& name = "a.qcow2", const std::string& parent = "base.qcow2") {
    create(name, {.size = model_.size(), .parent = parent});
    open_eliding(name);
  }

  /// What the disk has there already.
  void write_again(uint64_t offset, uint64_t length) {
    write(offset, Bytes(model_.begin() + static_cast<ptrdiff_t>(offset),
                        model_.begin() + static_cast<ptrdiff_t>(offset + length)));
  }

  /// Makes the manifest at `path` that of an image.
  static void claim(const std::string& path, const Uuid& uuid) {
    const Bytes bytes = qcow_test::read_file(path);
    const uint64_t at = bytes.size() - SumsFooter::kBytes;
    SumsFooter footer = SumsFooter::decode(std::span(bytes).subspan(at), bytes.size(), path);
    footer.image_uuid = uuid;
    qcow_test::patch(path, at, footer.encode());
  }

  ContentResult content(const std::string& name) {
    const auto image = run(Layer::open(runtime(), file(name), {}));
    const auto sums = run(SumsReader::open(runtime().files, sums_of(file(name))));
    return run(check_content(runtime(), *image, *sums, {}));
  }

  void expect_sound(const std::string& name) {
    EXPECT_EQ(content(name).damaged_bytes, 0u);
    expect_valid(name);
  }

  ImageCounters counters_;
};

TEST_F(Elisions, ADiskThatIsSentAgainStoresNothing) {
  publish_base();
  open_overlay();
  write_again(0, 4 << 20);
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, 0u);
  EXPECT_EQ(counters_.bytes_elided, 2u << 20) << "the other half is zeroes over zeroes";
  EXPECT_EQ(content("a.qcow2").data_bytes, 0u);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, OnlyTheClustersThatDifferAreStored) {
  publish_base();
  open_overlay();
  for (const uint64_t cluster : {3, 4, 17, 31}) model_[cluster * kCluster + 100] ^= std::byte{1};
  model_[40 * kCluster] = std::byte{1};  // over zeroes
  write_again(0, 4 << 20);
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, 5 * kCluster);
  EXPECT_EQ(counters_.bytes_elided, 28 * kCluster);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, WhatHasTheChecksumOfTheParentsButOtherBytesIsStored) {
  publish_base();
  // Another image's manifest in its place: its checksums are those of what will be written.
  const Bytes base = model_;
  create("other.qcow2", {.size = 4 << 20});
  open_eliding("other.qcow2");
  write_random(0, 2 << 20);
  publish();
  const Bytes other = model_;
  const std::string sums = sums_of(file("base.qcow2"));
  const Uuid uuid =
      run(Layer::open(runtime(), file("base.qcow2"), {}))->header().record->image_uuid;
  std::filesystem::rename(sums_of(file("other.qcow2")), sums);
  claim(sums, uuid);

  model_ = base;
  open_overlay();
  write(0, Bytes(other.begin(), other.begin() + (2 << 20)));
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, 2u << 20);
  EXPECT_EQ(counters_.bytes_elided, 0u);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, APartOfAClusterWithTheSameBytesIsNotStored) {
  publish_base();
  open_overlay();
  write_again(5 * kCluster + 512, 4096);
  write_again(7 * kCluster + 1, 100);
  write_again(9 * kCluster - 1000, 2000);  // of two clusters
  write_random(20 * kCluster + 512, 4096);
  flush();
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, kCluster);
  EXPECT_EQ(counters_.bytes_elided, 4 * kCluster);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, AClusterThatIsCompletedInPiecesIsComparedAsAWhole) {
  publish_base();
  open_overlay();
  write_again(5 * kCluster, 1000);
  write_again(5 * kCluster + 1000, kCluster - 1000);
  write_again(6 * kCluster, 1000);
  write_random(6 * kCluster + 1000, kCluster - 1000);
  publish();
  EXPECT_EQ(counters_.bytes_stored, kCluster);
  EXPECT_EQ(counters_.bytes_elided, kCluster);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, BytesThatChangeAndChangeBackAreKeptAsTheyAreNow) {
  publish_base();
  open_overlay();
  const Bytes before = read(0, 8 * kCluster);
  write_random(0, 8 * kCluster);
  flush();
  write(0, before);
  zero(10 * kCluster, 2 * kCluster);
  write_random(10 * kCluster, kCluster);
  expect_reads_as_model();
  publish();
  expect_sound("a.qcow2");
}

TEST_F(Elisions, ReachThroughAChainToTheLayerThatHoldsTheCluster) {
  publish_base();
  for (const auto& [name, parent] : {std::pair("b.qcow2", "base.qcow2"), {"c.qcow2", "b.qcow2"}}) {
    open_overlay(name, parent);
    write_random(random_below(20) * kCluster, 5 * kCluster);
    zero(random_below(20) * kCluster, 3 * kCluster);
    publish();
  }
  open_overlay("a.qcow2", "c.qcow2");
  write_again(0, 4 << 20);
  publish();
  EXPECT_EQ(counters_.bytes_stored, 0u);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, OverAParentWithoutAManifestNothingIsLeftOut) {
  publish_base();
  std::filesystem::remove(sums_of(file("base.qcow2")));
  open_overlay();
  write_again(0, 2 << 20);
  publish();
  EXPECT_EQ(counters_.bytes_stored, 2u << 20);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, OverAParentWithADamagedManifestNothingIsLeftOut) {
  publish_base();
  const std::string sums = sums_of(file("base.qcow2"));
  qcow_test::patch_be<uint8_t>(sums, 40, 0xa5);
  open_overlay();
  write_again(0, 2 << 20);
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, 2u << 20);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, ARottenClusterOfTheParentIsStoredAnew) {
  publish_base();
  const Bytes sent = model_;
  const uint64_t host = qcow_test::host_of(file("base.qcow2"), 5);
  qcow_test::patch_be<uint8_t>(file("base.qcow2"), host + 77,
                               static_cast<uint8_t>(sent[5 * kCluster + 77]) ^ 1);
  open_overlay();
  write_again(0, 2 << 20);
  publish();
  EXPECT_EQ(counters_.bytes_stored, kCluster);
  expect_valid("a.qcow2");
}

TEST_F(Elisions, WhatAParentCannotGiveIsStoredAnew) {
  publish_base();
  const std::string base = file("base.qcow2");
  qcow_test::patch_be<uint64_t>(base, qcow_test::first_table_of(base) + 5 * 8,
                                0x8000'0000'0000'0201);
  open_overlay();
  write_again(0, 2 << 20);
  expect_reads_as_model();
  publish();
  EXPECT_GE(counters_.bytes_stored, kCluster);
  EXPECT_EQ(content("a.qcow2").damaged_bytes, 0u);
}

TEST_F(Elisions, OverAShorterParentTheGrownTailIsStored) {
  publish_base(4 << 20);
  model_.resize(6 << 20);
  create("a.qcow2", {.size = 6 << 20, .parent = "base.qcow2"});
  open_eliding("a.qcow2");
  write_random(5 << 20, kCluster);
  write_again(0, 6 << 20);
  expect_reads_as_model();
  publish();
  EXPECT_EQ(counters_.bytes_stored, kCluster);
  expect_sound("a.qcow2");
}

TEST_F(Elisions, OfRandomRepeatsAndChangesEqualTheModel) {
  publish_base(8 << 20);
  for (int round = 0; round < 6; ++round) {
    const std::string name = "r" + std::to_string(round) + ".qcow2";
    open_overlay(name, round == 0 ? "base.qcow2" : "r" + std::to_string(round - 1) + ".qcow2");
    for (int i = 0; i < 60; ++i) {
      const uint64_t offset = random_below(model_.size() - 1);
      const uint64_t length =
          1 + random_below(std::min<uint64_t>(model_.size() - offset, 6 * kCluster));
      if (random_below(3) == 0) {
        write_random(offset, length);
      } else {
        write_again(offset, length);
      }
    }
    random_operations(20, 512);
    expect_reads_as_model();
    publish();
    expect_sound(name);
  }
}

}  // namespace
}  // namespace qcow
