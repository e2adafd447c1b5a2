// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/create.h"

#include <filesystem>
#include <system_error>

#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::refusal_of;

class Create : public qcow_test::ImageFiles {
 protected:
  void make(const std::string& name, CreateOptions options) {
    options.image_uuid.fill(std::byte{0x17});
    run(create(runtime(), file(name), std::move(options)));
  }
  std::string refusal(CreateOptions options) {
    return refusal_of([&] { make("refused.qcow2", options); });
  }
};

TEST_F(Create, PutsAFresh5GibImageWhereQemuPutsIt) {
  qemu_img("create -f qcow2 theirs.qcow2 5G");
  make("ours.qcow2", {.virtual_size = uint64_t{5} << 30});
  EXPECT_EQ(qcow_test::file_bytes(file("ours.qcow2")), 196688u);
  Header ours = header("ours.qcow2");
  EXPECT_TRUE(ours.record->full_image());
  EXPECT_FALSE(ours.record->published());
  EXPECT_EQ(ours.record->image_uuid[0], std::byte{0x17});
  ours.record.reset();
  ours.feature_names.pop_back();  // "varve seal"; qemu 7.2 names the other eight
  EXPECT_EQ(ours, header("theirs.qcow2"));
  // All behind cluster 0 is the same to the byte: refcount table, block, L1.
  const auto tail = [&](const std::string& name) {
    const auto content = qcow_test::read_file(file(name));
    return qcow_test::Bytes(content.begin() + 0x10000, content.end());
  };
  EXPECT_EQ(tail("ours.qcow2"), tail("theirs.qcow2"));
}

TEST_F(Create, OverlayNamesItsParentAsQemuDoes) {
  make("base.qcow2", {.virtual_size = 10 << 20});
  CreateOptions options{.virtual_size = 12 << 20};
  options.parent = NewParent{.name = "base.qcow2"};
  options.parent->uuid.fill(std::byte{0x17});
  make("top.qcow2", options);
  EXPECT_EQ(header("top.qcow2").record->parent_uuid[3], std::byte{0x17});
  EXPECT_FALSE(header("top.qcow2").record->full_image());
  const std::string info = qemu_img("info --backing-chain top.qcow2");
  EXPECT_NE(info.find("\nbacking file: base.qcow2\n"), std::string::npos) << info;
  EXPECT_NE(info.find("\nbacking file format: qcow2\n"), std::string::npos) << info;
  EXPECT_EQ(open_chain("top.qcow2")->layer_count(), 2u);
}

TEST_F(Create, IsCleanForQemuAtEveryClusterSizeAndRefcountWidth) {
  for (const uint32_t bits : {9, 10, 12, 16, 21}) {
    for (const uint32_t order : {0, 4, 6}) {
      for (const uint64_t size : {uint64_t{1}, uint64_t{100'000'001}}) {
        if (size == 1 && order != 4) continue;
        const std::string name = "i" + std::to_string(bits) + "-" + std::to_string(order);
        make(name, {.virtual_size = size, .cluster_bits = bits, .refcount_order = order});
        const std::string text = qemu_img("check -f qcow2 " + name);
        EXPECT_NE(text.find("No errors were found on the image."), std::string::npos) << text;
        EXPECT_EQ(open_chain(name)->size(), size);
        std::filesystem::remove(file(name));
      }
    }
  }
}

TEST_F(Create, SizesTheRefcountTableOnceAndForAll) {
  make("huge.qcow2", {.virtual_size = uint64_t{64} << 40});
  const Header huge = header("huge.qcow2");
  EXPECT_EQ(huge.refcount_table_clusters, 5u);  // 64 TiB of data and its metadata, 16 TiB a cluster
  EXPECT_EQ(huge.l1_table, HostOffset{0x70000});
  qemu_img("check huge.qcow2");
}

TEST_F(Create, RefusesSizesThatQemuCouldNotOpen) {
  EXPECT_EQ(refusal({.virtual_size = 0}), "\"refused.qcow2\": disk size 0 is too small");
  for (const uint64_t size : {uint64_t{1} << 51, (uint64_t{1} << 51) + 1, ~uint64_t{0}}) {
    EXPECT_EQ(refusal({.virtual_size = size}),
              "\"refused.qcow2\": disk size " + std::to_string(size) + " is too large");
  }
  EXPECT_EQ(refusal({.virtual_size = (uint64_t{128} << 30) + 1, .cluster_bits = 9}),
            "\"refused.qcow2\": disk size 137438953473 is too large");
  EXPECT_FALSE(std::filesystem::exists(file("refused.qcow2")));
}

TEST_F(Create, KnowsTheLargestDiskThatItTakes) {
  for (const uint32_t cluster_bits : {9u, 16u, 21u}) {
    const uint64_t most = virtual_size_max(cluster_bits);
    EXPECT_NO_THROW(new_header({.virtual_size = most, .cluster_bits = cluster_bits}, "x"));
    EXPECT_THROW(new_header({.virtual_size = most + 512, .cluster_bits = cluster_bits}, "x"),
                 FormatError);
  }
}

TEST_F(Create, LeavesOutTheFeatureNamesWhenClustersAreTiny) {
  make("tiny.qcow2", {.virtual_size = 1 << 20, .cluster_bits = 9});
  EXPECT_TRUE(header("tiny.qcow2").feature_names.empty());
  EXPECT_TRUE(header("tiny.qcow2").record);
}

TEST_F(Create, NeverReplacesAFile) {
  qcow_test::write_file(file("a.qcow2"), qcow_test::Bytes(3));
  try {
    make("a.qcow2", {.virtual_size = 1 << 20});
    FAIL() << "replaced a file";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EEXIST);
  }
  EXPECT_EQ(qcow_test::file_bytes(file("a.qcow2")), 3u);
}

TEST_F(Create, CanBeFilledByQemu) {
  make("base.qcow2", {.virtual_size = 8 << 20});
  scribble("base.qcow2", 8 << 20, 40);
  EXPECT_EQ(varve_content("base.qcow2"), qemu_content("base.qcow2"));
  qemu_img("check base.qcow2");
}

}  // namespace
}  // namespace qcow
