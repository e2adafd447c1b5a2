// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::refusal_of;

/// Images made by qemu-img, with properties that varve's own never have.
class ForeignImages : public qcow_test::ImageModel {
 protected:
  void open_foreign(const std::string& name) {
    model_ = qemu_content(name);
    open(name);
  }
  /// Writes into the image with varve, and asks qemu.
  void exercise(const std::string& name, uint64_t alignment = 1) {
    open_foreign(name);
    random_operations(60, alignment);
    expect_reads_as_model();
    close();
    expect_valid_foreign(name);
    open(name);
    random_operations(60, alignment);
    close();
    expect_valid_foreign(name);
  }
  void expect_valid_foreign(const std::string& name) {
    const std::string text = check(name);
    EXPECT_NE(text.find("No errors were found"), std::string::npos) << text;
    EXPECT_TRUE(qemu_content(name) == model_) << name;
  }
};

TEST_F(ForeignImages, OfEveryShape) {
  for (const std::string options :
       {"cluster_size=512", "cluster_size=512,refcount_bits=64", "cluster_size=1k,refcount_bits=1",
        "cluster_size=4k,refcount_bits=2", "cluster_size=2M", "compat=0.10", "lazy_refcounts=on",
        "preallocation=metadata", "preallocation=full", "cluster_size=8k,refcount_bits=8"}) {
    SCOPED_TRACE(options);
    qemu_img("create -f qcow2 -o " + options + " a.qcow2 3M");
    scribble("a.qcow2", 3 << 20, 20);
    exercise("a.qcow2");
  }
}

TEST_F(ForeignImages, OverAParentIncludingVersionTwo) {
  for (const std::string compat : {"compat=1.1", "compat=0.10"}) {
    SCOPED_TRACE(compat);
    qemu_img("create -f qcow2 base.qcow2 2M");
    scribble("base.qcow2", 2 << 20, 20);
    qemu_img("create -f qcow2 -b base.qcow2 -F qcow2 -o " + compat + " a.qcow2 3M");
    scribble("a.qcow2", 3 << 20, 5);
    exercise("a.qcow2");
  }
}

TEST_F(ForeignImages, WithCompressedClustersThatAreOverwritten) {  // CP6
  for (const std::string type : {"zlib", "zstd"}) {
    SCOPED_TRACE(type);
    qemu_img("create -f qcow2 raw.qcow2 4M");
    qemu_io("raw.qcow2", {"write -P 5 0 4M", "write -P 6 100k 1500k"});
    qemu_img("convert -c -O qcow2 -o compression_type=" + type + " raw.qcow2 a.qcow2");
    exercise("a.qcow2");
  }
}

TEST_F(ForeignImages, WithACompressedStreamBehindTheLastClusterAreNotWritten) {
  qemu_img("create -f qcow2 raw.qcow2 1M");
  qemu_io("raw.qcow2", {"write -P 5 0 1M"});
  qemu_img("convert -c -O qcow2 raw.qcow2 a.qcow2");
  const uint64_t l2_table =
      qcow_test::peek_be<uint64_t>(file("a.qcow2"),
                                   qcow_test::peek_be<uint64_t>(file("a.qcow2"), 40)) &
      kEntryOffsetMask;
  const uint64_t last = l2_table + 15 * 8;
  const uint64_t entry = qcow_test::peek_be<uint64_t>(file("a.qcow2"), last);
  // 256 sectors, two clusters: the most that an entry can say.
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), last, entry | uint64_t{0xff} << 54);
  const std::string refusal = refusal_of([&] { open("a.qcow2"); });
  EXPECT_NE(refusal.find("has refcount 0, but the tables name it once or more"), std::string::npos)
      << refusal;
}

TEST_F(ForeignImages, WithARefcountTableThatIsTooSmall) {
  // 64 entries of 64 clusters of 512 bytes: the table covers 2 MiB of file.
  qemu_img("create -f qcow2 -o cluster_size=512,refcount_bits=64 a.qcow2 8M");
  open_foreign("a.qcow2");
  write(0, qcow_test::random_bytes(random_, 8 << 20));
  expect_reads_as_model();
  close();
  expect_valid_foreign("a.qcow2");
}

TEST_F(ForeignImages, LoseUnknownAutoclearBitsBeforeTheFirstWrite) {  // FB10
  qemu_img("create -f qcow2 a.qcow2 1M");
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), 88, uint64_t{1} << 40);
  open_foreign("a.qcow2");
  EXPECT_EQ(qcow_test::peek_be<uint64_t>(file("a.qcow2"), 88), 0u);
  close();
}

TEST_F(ForeignImages, WithSnapshotsAreNotWritten) {  // RF19
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_img("snapshot -c one a.qcow2");
  EXPECT_EQ(refusal_of([&] { open("a.qcow2"); }), "\"a.qcow2\": has 1 internal snapshots");
}

TEST_F(ForeignImages, MarkedCorruptAreNotWritten) {  // RF7
  qemu_img("create -f qcow2 a.qcow2 1M");
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), 72, 2);
  EXPECT_EQ(refusal_of([&] { open("a.qcow2"); }), "\"a.qcow2\": marked corrupt");
}

TEST_F(ForeignImages, ABlockDeviceIsRefusedForWhatItIs) {
  const std::string device = file("disk");
  if (::mknod(device.c_str(), S_IFBLK | 0600, makedev(7, 0)) != 0) {
    GTEST_SKIP() << "device nodes take a privilege";
  }
  for (const auto& attempt : {std::function<void()>([&] { open("disk"); }),
                              std::function<void()>([&] { open_chain("disk"); })}) {
    try {
      attempt();
      ADD_FAILURE() << "a block device was opened as an image";
    } catch (const std::system_error& failure) {
      const std::string text = failure.what();
      EXPECT_NE(text.find("is a block device and not a regular file"), std::string::npos) << text;
      EXPECT_NE(text.find("copy the device into one with \"qemu-img convert\""), std::string::npos)
          << text;
    }
  }
}

TEST_F(ForeignImages, InUseElsewhereAreRefused) {  // RF21, LK1
  create("a.qcow2", {.size = 1 << 20});
  open("a.qcow2");
  const std::string text = refusal_of(
      [&] { const auto second = run(Image::open(runtime(), file("a.qcow2"), ImageOptions())); });
  EXPECT_NE(text.find("in use by another process (lock byte"), std::string::npos) << text;
  EXPECT_NE(support::run_command("qemu-img info " + file("a.qcow2"))
                .output.find("Failed to get shared \"write\" lock"),
            std::string::npos);
  close();
  EXPECT_TRUE(support::run_command("qemu-img info " + file("a.qcow2")).ok());
}

}  // namespace
}  // namespace qcow
