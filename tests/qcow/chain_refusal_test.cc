// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>

#include "qcow/chain/chain.h"
#include "qcow/chain/parents.h"
#include "qcow/image/create.h"
#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::refusal_of;

class ChainRefusal : public qcow_test::ImageFiles {
 protected:
  void make(const std::string& name, std::optional<NewParent> parent = {},
            std::byte uuid = std::byte{0}) {
    CreateOptions options{.virtual_size = 1 << 20};
    options.image_uuid.fill(uuid);
    options.parent = std::move(parent);
    run(create(runtime(), file(name), options));
  }
  std::string refusal(const std::string& name, ChainOptions options = ChainOptions()) {
    return refusal_of([&] { open_chain(name, options); });
  }
  std::string refusal_inside(const std::string& name, const std::string& root) {
    return refusal(name, {.repository_root = root});
  }
  /// Rewrites a header in place.
  template <class Change>
  void change_header(const std::string& name, Change change) {
    Header changed = header(name);
    change(changed);
    qcow_test::patch(file(name), 0, changed.encode(name));
  }
};

TEST_F(ChainRefusal, Rf15ParentsStayInsideTheRepository) {
  std::filesystem::create_directory(file("repository"));
  make("outside.qcow2");
  make("repository/base.qcow2");
  make("repository/relative.qcow2", NewParent{.name = "base.qcow2"});
  make("repository/absolute.qcow2", NewParent{.name = file("repository/base.qcow2")});
  make("repository/dots.qcow2", NewParent{.name = "../outside.qcow2"});
  make("repository/far.qcow2", NewParent{.name = file("outside.qcow2")});
  std::filesystem::create_symlink(file("outside.qcow2"), file("repository/link.qcow2"));
  make("repository/linked.qcow2", NewParent{.name = "link.qcow2"});
  const std::string root = file("repository");
  EXPECT_EQ(refusal_inside("repository/relative.qcow2", root), "(not refused)");
  EXPECT_EQ(refusal_inside("repository/absolute.qcow2", root), "(not refused)");
  EXPECT_EQ(
      refusal_inside("repository/dots.qcow2", root),
      "\"dots.qcow2\": backing file \"../outside.qcow2\" is outside the repository directory");
  EXPECT_EQ(refusal_inside("repository/far.qcow2", root),
            "\"far.qcow2\": backing file \"" + file("outside.qcow2") +
                "\" is outside the repository directory");
  EXPECT_EQ(refusal_inside("repository/linked.qcow2", root),
            "\"linked.qcow2\": backing file \"link.qcow2\" is outside the repository directory");
  // `varve nbd` serves a file where it lies.
  EXPECT_EQ(refusal("repository/dots.qcow2"), "(not refused)");
}

TEST_F(ChainRefusal, Rf15ProtocolsAreNoFiles) {
  for (const std::string name : {"json:{}", "nbd://host/x", "file:base.qcow2", "ssh:a"}) {
    make("a.qcow2", NewParent{.name = name});
    EXPECT_EQ(refusal("a.qcow2"),
              "\"a.qcow2\": backing file \"" + name + "\" is outside the repository directory");
    std::filesystem::remove(file("a.qcow2"));
  }
  EXPECT_FALSE(has_protocol_prefix("dir/a:b.qcow2"));
  EXPECT_FALSE(has_protocol_prefix("a.qcow2"));
}

TEST_F(ChainRefusal, Rf16TheFormatIsNeverGuessed) {
  make("base.qcow2");
  make("a.qcow2", NewParent{.name = "base.qcow2"});
  change_header("a.qcow2", [](Header& header) { header.backing_format = "raw"; });
  EXPECT_EQ(refusal("a.qcow2"), "\"a.qcow2\": backing format \"raw\" is not supported");
  change_header("a.qcow2", [](Header& header) { header.backing_format.reset(); });
  EXPECT_EQ(refusal("a.qcow2"), "\"a.qcow2\": backing format is missing");
}

TEST_F(ChainRefusal, Rf17Loops) {
  make("a.qcow2", NewParent{.name = "c.qcow2"});
  make("b.qcow2", NewParent{.name = "a.qcow2"});
  make("c.qcow2", NewParent{.name = "b.qcow2"});
  EXPECT_EQ(refusal("c.qcow2"), "\"c.qcow2\": backing chain loops at \"c.qcow2\"");
  make("self.qcow2", NewParent{.name = "./self.qcow2"});
  EXPECT_EQ(refusal("self.qcow2"), "\"self.qcow2\": backing chain loops at \"./self.qcow2\"");
}

TEST_F(ChainRefusal, Rf17Depth) {
  make_long_chain(257, 1 << 20);
  EXPECT_EQ(refusal("c255.qcow2"), "(not refused)");
  EXPECT_EQ(refusal("c256.qcow2"), "\"c256.qcow2\": backing chain is deeper than 256");
}

TEST_F(ChainRefusal, Rf20TheParentIsTheImageItWas) {
  make("base.qcow2", {}, std::byte{1});
  NewParent right{.name = "base.qcow2"};
  right.uuid.fill(std::byte{1});
  make("right.qcow2", right);
  EXPECT_EQ(refusal("right.qcow2"), "(not refused)");
  NewParent wrong = right;
  wrong.uuid.fill(std::byte{2});
  make("wrong.qcow2", wrong);
  EXPECT_EQ(refusal("wrong.qcow2"),
            "\"wrong.qcow2\": parent \"base.qcow2\" is not the image this one was made on");
  NewParent other_manifest = right;
  other_manifest.manifest_hash.fill(std::byte{3});
  make("manifest.qcow2", other_manifest);
  EXPECT_EQ(refusal("manifest.qcow2"),
            "\"manifest.qcow2\": parent \"base.qcow2\" is not the image this one was made on");
}

TEST_F(ChainRefusal, ImagesWithoutARecordHaveNoIdentityToDefend) {
  qemu_img("create -f qcow2 base.qcow2 1M");
  qemu_img("create -f qcow2 -b base.qcow2 -F qcow2 theirs.qcow2");
  make("ours.qcow2", NewParent{.name = "base.qcow2"});
  EXPECT_EQ(refusal("theirs.qcow2"), "(not refused)");
  EXPECT_EQ(refusal("ours.qcow2"), "(not refused)");
}

TEST_F(ChainRefusal, LeavesNoLockBehind) {
  make("base.qcow2");
  make("mid.qcow2", NewParent{.name = "base.qcow2"});
  make("top.qcow2", NewParent{.name = "mid.qcow2"});
  change_header("mid.qcow2", [](Header& header) { header.backing_format = "vmdk"; });
  EXPECT_EQ(refusal("top.qcow2"), "\"mid.qcow2\": backing format \"vmdk\" is not supported");
  change_header("mid.qcow2", [](Header& header) { header.backing_format = "qcow2"; });
  qemu_img("resize top.qcow2 2M");  // takes qemu's locks on all three
}

TEST_F(ChainRefusal, AMissingParentIsNamed) {
  make("a.qcow2", NewParent{.name = "gone.qcow2"});
  try {
    open_chain("a.qcow2");
    FAIL() << "opened";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), ENOENT);
    EXPECT_NE(std::string(error.what()).find("gone.qcow2"), std::string::npos) << error.what();
  }
}

TEST_F(ChainRefusal, ParentsOfAnImageThatSomebodyElseHoldsOpen) {
  make("base.qcow2");
  make("top.qcow2", NewParent{.name = "base.qcow2"});
  const auto parents = run(
      Chain::open_parents_of(runtime(), file("top.qcow2"), header("top.qcow2"), ChainOptions()));
  EXPECT_EQ(parents->layer_count(), 1u);
  EXPECT_EQ(parents->layer(0).name(), "base.qcow2");
  EXPECT_EQ(run(Chain::open_parents_of(runtime(), file("base.qcow2"), header("base.qcow2"),
                                       ChainOptions())),
            nullptr);
}

TEST_F(ChainRefusal, Bc1ARepositoryCanBeMoved) {
  std::filesystem::create_directory(file("one"));
  make("one/base.qcow2");
  make("one/top.qcow2", NewParent{.name = "base.qcow2"});
  std::filesystem::rename(file("one"), file("two"));
  EXPECT_EQ(open_chain("two/top.qcow2")->layer_count(), 2u);
  const std::string info = qemu_img("info --backing-chain two/top.qcow2");
  EXPECT_NE(info.find("image: two/base.qcow2"), std::string::npos) << info;
}

TEST_F(ChainRefusal, Bc6APublishedImageThatQemuOpenedForWritingIsSuspect) {
  make("base.qcow2");
  change_header("base.qcow2", [](Header& header) {
    header.autoclear_features |= kAutoclearSeal;
    header.record->flags |= Record::kFlagPublished;
  });
  make("top.qcow2", NewParent{.name = "base.qcow2"});
  EXPECT_FALSE(open_chain("top.qcow2")->suspect());
  qemu_img("check base.qcow2");
  EXPECT_FALSE(open_chain("top.qcow2")->suspect());
  qemu_io("base.qcow2", {"write -P 1 0 512"});
  EXPECT_EQ(open_chain("top.qcow2")->suspect(),
            "\"base.qcow2\": touched since publish (seal bit clear)");
}

class CorruptEntries : public ChainRefusal {
 protected:
  void SetUp() override {
    qemu_img("create -f qcow2 a.qcow2 2G");
    qemu_io("a.qcow2", {"write -P 1 0 256k", "write -P 2 1G 64k"});
    l1_table_ = header("a.qcow2").l1_table.bytes;
    l2_table_ = qcow_test::peek_be<uint64_t>(file("a.qcow2"), l1_table_) & kEntryOffsetMask;
  }
  std::string refusal_at(uint64_t offset) {
    const auto chain = open_chain("a.qcow2");
    Bytes into(4096);
    return refusal_of([&] { run(chain->read(offset, into)); });
  }
  uint64_t l1_table_ = 0, l2_table_ = 0;
};

TEST_F(CorruptEntries, Rf18SpoilOnlyTheirOwnRange) {
  const uint64_t good = qcow_test::peek_be<uint64_t>(file("a.qcow2"), l2_table_ + 8);
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), l2_table_ + 8, good | 4);
  EXPECT_EQ(refusal_at(0), "(not refused)");
  EXPECT_EQ(refusal_at(65536 + 512),
            fmt::format("\"a.qcow2\": corrupt L2 entry {:#x} at guest offset 66048", good | 4));
  EXPECT_EQ(refusal_at(131072), "(not refused)");
  EXPECT_EQ(refusal_at(uint64_t{1} << 30), "(not refused)");
}

TEST_F(CorruptEntries, Rf18PastTheEndOfTheFile) {
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), l2_table_, 0x8000'0000'7000'0000);
  EXPECT_EQ(refusal_at(0), "\"a.qcow2\": corrupt L2 entry 0x8000000070000000 at guest offset 0");
}

TEST_F(CorruptEntries, Rf18OffsetZeroAndCopied) {
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), l2_table_, kEntryCopied);
  EXPECT_EQ(refusal_at(0), "\"a.qcow2\": corrupt L2 entry 0x8000000000000000 at guest offset 0");
}

TEST_F(CorruptEntries, Rf18InL1SpoilsItsWholeTable) {
  qcow_test::patch_be<uint64_t>(file("a.qcow2"), l1_table_, 0x8000'0000'0004'0001);
  EXPECT_EQ(refusal_at(300 << 20),
            "\"a.qcow2\": corrupt L1 entry 0x8000000000040001 at guest offset 314572800");
  EXPECT_EQ(refusal_at(uint64_t{1} << 30), "(not refused)");
}

TEST_F(CorruptEntries, ADamagedStreamNamesItsCluster) {
  qemu_img("convert -c -O qcow2 a.qcow2 c.qcow2");
  std::filesystem::rename(file("c.qcow2"), file("a.qcow2"));
  const uint64_t l2 =
      qcow_test::peek_be<uint64_t>(file("a.qcow2"), header("a.qcow2").l1_table.bytes) &
      kEntryOffsetMask;
  const auto mapping = decode_l2_entry(qcow_test::peek_be<uint64_t>(file("a.qcow2"), l2 + 8), 16);
  ASSERT_EQ(mapping->kind, MappingKind::compressed);
  qcow_test::patch(file("a.qcow2"), mapping->host.bytes, Bytes(16, std::byte{0xff}));
  EXPECT_EQ(refusal_at(65536 + 512),
            "\"a.qcow2\": corrupt compressed cluster at guest offset 65536");
}

}  // namespace
}  // namespace qcow
