// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>

#include "qcow/chain/sums_reader.h"
#include "qcow/check/check_content.h"
#include "qcow/format/format_error.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

/// Images that keep the checksums of what was sent.
class Manifest : public qcow_test::ImageModel {
 protected:
  void open_with_sums(const std::string& name) {
    ImageOptions options;
    options.sums_path = file(name + ".sums");
    open(name, options);
  }

  void publish() {
    run(image_->seal());
    run(image_->publish_header(Sha256{std::byte{1}}, 1'700'000'000));
    close();
  }

  ContentResult content(const std::string& name) {
    const auto image = run(Layer::open(runtime(), file(name), {}));
    const auto sums = run(SumsReader::open(runtime().files, file(name + ".sums")));
    return run(check_content(runtime(), *image, *sums, {}));
  }

  void flip(const std::string& path, uint64_t at, int bit = 0) {
    const auto byte = qcow_test::peek_be<uint8_t>(path, at);
    qcow_test::patch_be<uint8_t>(path, at, static_cast<uint8_t>(byte ^ (1 << bit)));
  }
};

TEST_F(Manifest, OfAnImageThatWasWrittenInEveryWayIsTrueOfIt) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const std::string name = "a" + std::to_string(seed) + ".qcow2";
    create(name, {.size = (6 << 20) + 512 * seed});
    open_with_sums(name);
    random_operations(150, seed % 2 == 0 ? 512 : 1);
    random_concurrent_writes(60, 512);
    expect_reads_as_model();
    publish();
    const ContentResult found = content(name);
    EXPECT_EQ(found.damaged_bytes, 0u) << name;
    EXPECT_GT(found.data_bytes, 0u);
    expect_valid(name);
  }
}

TEST_F(Manifest, OfAnOverlayHasItsOwnClustersAndItsZeroes) {
  create("base.qcow2", {.size = 4 << 20});
  open_with_sums("base.qcow2");
  write_random(0, 4 << 20);
  run(image_->seal());
  close();
  create("a.qcow2", {.size = 4 << 20, .parent = "base.qcow2"});
  open_with_sums("a.qcow2");
  write_random(kCluster, 3 * kCluster);
  write_random(10 * kCluster + 100, 1000);
  zero(20 * kCluster, 5 * kCluster);
  publish();
  const ContentResult found = content("a.qcow2");
  EXPECT_EQ(found.data_bytes, 4 * kCluster);
  EXPECT_EQ(found.zero_bytes, 5 * kCluster);
  EXPECT_EQ(found.damaged_bytes, 0u);
}

TEST_F(Manifest, FindsEveryBitThatIsFlippedInDataAndNamesItsPlace) {
  create("a.qcow2", {.size = 4 << 20});
  open_with_sums("a.qcow2");
  write_random(0, 2 << 20);
  publish();
  for (int i = 0; i < 64; ++i) {
    const uint64_t cluster = random_below((2 << 20) / kCluster);
    const uint64_t host = qcow_test::host_of(file("a.qcow2"), cluster);
    const uint64_t at = host + random_below(kCluster);
    const int bit = static_cast<int>(random_below(8));
    flip(file("a.qcow2"), at, bit);
    const ContentResult found = content("a.qcow2");
    ASSERT_EQ(found.damaged.size(), 1u);
    EXPECT_EQ(found.damaged_bytes, kCluster);
    EXPECT_EQ(found.damaged[0].offset, cluster * kCluster);
    EXPECT_EQ(found.damaged[0].host.bytes, host);
    EXPECT_EQ(found.damaged[0].what, "reads differently");
    flip(file("a.qcow2"), at, bit);
  }
  EXPECT_EQ(content("a.qcow2").damaged_bytes, 0u);
}

TEST_F(Manifest, FindsClustersThatTheTablesHaveLostOrSwapped) {
  create("a.qcow2", {.size = 4 << 20});
  open_with_sums("a.qcow2");
  write_random(0, 8 * kCluster);
  publish();
  const std::string path = file("a.qcow2");
  const auto l1_table = qcow_test::peek_be<uint64_t>(path, 40);
  const uint64_t l2_table = qcow_test::peek_be<uint64_t>(path, l1_table) & kEntryOffsetMask;
  const auto first = qcow_test::peek_be<uint64_t>(path, l2_table);
  const auto second = qcow_test::peek_be<uint64_t>(path, l2_table + 8);

  qcow_test::patch_be<uint64_t>(path, l2_table, 0);
  EXPECT_EQ(content("a.qcow2").damaged.at(0).what, "is mapped otherwise");
  qcow_test::patch_be<uint64_t>(path, l2_table, second);
  qcow_test::patch_be<uint64_t>(path, l2_table + 8, first);
  const ContentResult swapped = content("a.qcow2");
  EXPECT_EQ(swapped.damaged_bytes, 2 * kCluster);
  EXPECT_EQ(swapped.damaged.at(0).what, "reads differently");
  qcow_test::patch_be<uint64_t>(path, l2_table, first);
  qcow_test::patch_be<uint64_t>(path, l2_table + 8, second | 2);
  EXPECT_EQ(content("a.qcow2").damaged.at(0).what, "has a damaged table entry");
  qcow_test::patch_be<uint64_t>(path, l2_table + 8, second);
  qcow_test::patch_be<uint64_t>(path, l1_table, 0);
  EXPECT_EQ(content("a.qcow2").damaged_bytes, 8 * kCluster) << "a table that is lost as a whole";
}

TEST_F(Manifest, OfAnotherImageIsRefused) {
  for (const std::string name : {"a.qcow2", "b.qcow2"}) {
    CreateOptions one{.virtual_size = 1 << 20};
    one.image_uuid[0] = static_cast<std::byte>(name[0]);
    run(qcow::create(runtime(), file(name), one));
    model_.assign(1 << 20, std::byte{0});
    open_with_sums(name);
    write_random(0, kCluster);
    publish();
  }
  std::filesystem::copy_file(file("b.qcow2.sums"), file("a.qcow2.sums"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THROW(content("a.qcow2"), FormatError);
}

TEST_F(Manifest, TakesLittleSpace) {
  create("a.qcow2", {.size = 256 << 20});
  open_with_sums("a.qcow2");
  for (uint64_t at = 0; at < 256 << 20; at += 2 * kCluster) {  // no two neighbours
    write_random(at, kCluster);
  }
  publish();
  EXPECT_LE(qcow_test::file_bytes(file("a.qcow2.sums")), (128 << 20) / 2000);
}

}  // namespace
}  // namespace qcow
