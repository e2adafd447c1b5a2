// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "qcow/format/entries.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;
using qcow_test::patch_be;
using qcow_test::peek_be;
using qcow_test::read_file;
using qcow_test::refusal_of;

/// Images whose tables or refcounts are damaged before they are opened for writing.
class DamagedImages : public qcow_test::ImageModel {
 protected:
  uint64_t word(uint64_t at) { return peek_be<uint64_t>(file(name_), at); }
  uint64_t l1() { return header(name_).l1_table.bytes; }
  uint64_t l2() { return word(l1()) & kEntryOffsetMask; }
  uint64_t refcount_block() { return word(header(name_).refcount_table.bytes); }
  void set_refcount_of(uint64_t cluster, uint16_t value) {
    patch_be(file(name_), refcount_block() + cluster * 2, value);
  }
  void set_l2(uint64_t cluster, uint64_t raw) { patch_be(file(name_), l2() + cluster * 8, raw); }
  uint64_t host_of(uint64_t cluster) { return word(l2() + cluster * 8) & kEntryOffsetMask; }

  /// An image of varve's with data in its first 4 MiB, closed.
  void make_image() {
    create("a.qcow2", {.size = 8 << 20});
    open("a.qcow2");
    write_random(0, 4 << 20);
    close();
  }
  std::string refusal() {
    return refusal_of([&] { open(name_); });
  }
  uint64_t corruptions() {
    const auto text = support::run_command({"qemu-img", "check", "--output=json", file(name_)});
    const size_t at = text.output.find("\"corruptions\": ");
    return at == std::string::npos ? 0 : std::stoull(text.output.substr(at + 15));
  }
};

TEST_F(DamagedImages, WithAZeroedSectorOfRefcountsAreRefusedAndStayAsTheyAre) {
  make_image();
  qcow_test::patch(file("a.qcow2"), refcount_block(), Bytes(512));
  const Bytes before = read_file(file("a.qcow2"));
  const std::string text = refusal();
  EXPECT_NE(text.find("host cluster 0 at offset 0 has refcount 0"), std::string::npos) << text;
  EXPECT_NE(text.find("not written to"), std::string::npos) << text;
  EXPECT_TRUE(read_file(file("a.qcow2")) == before);
  EXPECT_TRUE(varve_content("a.qcow2") == model_) << "reading stays possible";
}

TEST_F(DamagedImages, WithOneRefcountTooLowAreRefusedByItsClusterAndOffset) {
  make_image();
  qemu_img("create -f qcow2 foreign.qcow2 8M");
  qemu_io("foreign.qcow2", {"write -P 7 0 4M"});
  for (const char* const name : {"a.qcow2", "foreign.qcow2"}) {
    name_ = name;
    const uint64_t host = host_of(9);
    set_refcount_of(host / kCluster, 0);
    const std::string text = refusal();
    EXPECT_NE(text.find(fmt::format("host cluster {} at offset {} has", host / kCluster, host)),
              std::string::npos)
        << text;
  }
}

TEST_F(DamagedImages, WithMoreNamesThanRefcountsAreRefused) {
  qemu_img("create -f qcow2 a.qcow2 8M");
  qemu_io("a.qcow2", {"write -P 1 0 1M"});
  name_ = "a.qcow2";
  set_l2(3, host_of(3));
  set_l2(4, host_of(3));  // neither entry claims to be the only one
  const std::string text = refusal();
  EXPECT_NE(text.find("has refcount 1, but the tables name it 2 times"), std::string::npos) << text;
  set_refcount_of(host_of(3) / kCluster, 2);  // which QCOW2 allows
  model_ = qemu_content("a.qcow2");
  open("a.qcow2");
  write_random(3 * kCluster, kCluster);
  close();
  EXPECT_TRUE(qemu_content("a.qcow2") == model_);
}

TEST_F(DamagedImages, ThatNameAClusterPastTheEndAreRefused) {
  make_image();
  set_l2(100, 0x7000'0000 | kEntryCopied);
  const std::string text = refusal();
  EXPECT_NE(text.find("host cluster 28672 at offset 1879048192"), std::string::npos) << text;
}

TEST_F(DamagedImages, WhoseDataLieOverATableAreMarkedCorrupt) {
  make_image();
  set_l2(100, l1());  // does not claim to be the only owner, but the L1 table is
  EXPECT_EQ(refusal(), "\"a.qcow2\": two owners of one host cluster; marked corrupt");
  EXPECT_EQ(word(72), kIncompatibleCorrupt);
}

/// Entry 5 of the L2 table has a reserved bit set; its neighbours are sound.
class DamagedEntry : public DamagedImages {
 protected:
  static constexpr uint64_t kBad = 5;

  void SetUp() override {
    make_image();
    good_ = host_of(kBad) | kEntryCopied;
    set_l2(kBad, good_ | 2);
    ImageOptions options;
    options.commit_interval = std::chrono::hours(1);
    open("a.qcow2", options);
  }
  /// What all of the file's healthy clusters hold, once the entry is repaired.
  void expect_all_as_model() {
    flush();
    close();
    set_l2(kBad, good_);
    expect_valid("a.qcow2");
  }
  template <class Action>
  void expect_refused(Action action) {
    const Bytes before = model_;
    const std::string text = refusal_of(action);
    EXPECT_NE(text.find("corrupt L2 entry"), std::string::npos) << text;
    EXPECT_NE(text.find("at guest offset 327680"), std::string::npos) << text;
    EXPECT_EQ(image_->failure(), nullptr) << "this range only";
    model_ = before;
  }

  uint64_t good_ = 0;
};

TEST_F(DamagedEntry, InsideAWriteOfManyClustersLeavesTheOthersAsTheyWere) {
  expect_refused([&] { write(2 * kCluster, Bytes(8 * kCluster, std::byte{1})); });
  expect_all_as_model();
}

TEST_F(DamagedEntry, InsideAWriteThatIsPartlyZeroLeavesTheOthersAsTheyWere) {
  Bytes bytes(8 * kCluster, std::byte{1});
  std::fill_n(bytes.begin(), 2 * kCluster, std::byte{0});
  expect_refused([&] { write(2 * kCluster, std::move(bytes)); });
  expect_all_as_model();
}

TEST_F(DamagedEntry, InsideAZeroOrTrimLeavesTheOthersAsTheyWere) {
  expect_refused([&] { zero(2 * kCluster, 8 * kCluster); });
  expect_refused([&] { discard(2 * kCluster, 8 * kCluster); });
  expect_refused([&] { zero(2 * kCluster, 8 * kCluster, io::ZeroMode::no_hole); });
  expect_all_as_model();
}

TEST_F(DamagedEntry, NeverCostsBytesThatWereAcknowledgedBesideIt) {
  create("b.qcow2", {.size = 8 << 20});
  close();
  name_ = "b.qcow2";
  model_.assign(8 << 20, std::byte{0});
  open("b.qcow2");
  write(0, Bytes(kCluster, std::byte{9}));
  close();
  set_l2(kBad, 2);
  good_ = 0;
  ImageOptions options;
  options.commit_interval = std::chrono::hours(1);
  open("b.qcow2", options);
  write(7 * kCluster + 100, Bytes(1000, std::byte{7}));  // waits in memory for its neighbours
  expect_refused([&] { write(2 * kCluster, Bytes(8 * kCluster, std::byte{1})); });
  expect_refused([&] { zero(2 * kCluster, 8 * kCluster); });
  flush();
  close();
  set_l2(kBad, good_);
  expect_valid("b.qcow2");
}

TEST_F(DamagedImages, InTheirRefcountsNeverLoseWhatIsAlive) {
  constexpr uint64_t kSmall = 4096;
  const auto make = [&](int kind) {
    std::filesystem::remove(file("good.qcow2"));
    if (kind == 0) {
      create("good.qcow2", {.size = 3 << 20, .cluster_bits = 12});
      open("good.qcow2");
      for (int i = 0; i < 8; ++i) write_random(random_below(5 << 19), 1 << 18);
      discard(1 << 20, 1 << 18);
      close();
    } else if (kind == 1) {
      qemu_img("create -f qcow2 -o cluster_size=4k good.qcow2 3M");
      scribble("good.qcow2", 3 << 20, 10);
    } else {
      qemu_img("create -f qcow2 -o cluster_size=4k raw.qcow2 3M");
      scribble("raw.qcow2", 3 << 20, 10);
      qemu_io("raw.qcow2", {"write -P 5 0 1M", "write -P 6 100k 700k"});
      qemu_img("convert -c -O qcow2 -o cluster_size=4k raw.qcow2 good.qcow2");
    }
  };
  int refused = 0, written = 0;
  for (int round = 0; round < 36; ++round) {
    SCOPED_TRACE(round);
    if (round % 12 == 0) make(round / 12);
    name_ = "a.qcow2";
    std::filesystem::copy_file(file("good.qcow2"), file("a.qcow2"),
                               std::filesystem::copy_options::overwrite_existing);
    model_ = qemu_content("a.qcow2");
    const uint64_t clusters = divide_up(qcow_test::file_bytes(file("a.qcow2")), kSmall);
    const uint64_t cluster = random_below(clusters + 50);
    const uint64_t at = refcount_block() + cluster * 2;
    const auto refcount = peek_be<uint16_t>(file("a.qcow2"), at);
    switch (random_below(4)) {
      case 0:
        qcow_test::patch(file("a.qcow2"), at / 512 * 512, Bytes(512));
        break;
      case 1:
        patch_be<uint16_t>(file("a.qcow2"), at, static_cast<uint16_t>(refcount + 1));
        break;
      default:
        patch_be<uint16_t>(file("a.qcow2"), at,
                           static_cast<uint16_t>(std::max<uint16_t>(refcount, 1) - 1));
    }
    const uint64_t corruptions_before = corruptions();
    const Bytes before = read_file(file("a.qcow2"));
    const std::string text = refusal();
    if (!image_) {
      ++refused;
      EXPECT_NE(text.find("host cluster"), std::string::npos) << text;
      EXPECT_TRUE(read_file(file("a.qcow2")) == before);
      continue;
    }
    ++written;
    random_operations(25, 512);
    expect_reads_as_model();
    close();
    EXPECT_TRUE(varve_content("a.qcow2") == model_);
    EXPECT_TRUE(qemu_content("a.qcow2") == model_);
    EXPECT_LE(corruptions(), corruptions_before);
  }
  EXPECT_GT(refused, 6);
  EXPECT_GT(written, 6);
}

}  // namespace
}  // namespace qcow
