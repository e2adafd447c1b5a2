// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/chain.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <system_error>

#include "io/task_scope.h"
#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::refusal_of;

class ChainReads : public qcow_test::ImageFiles {
 protected:
  /// The whole disk in large and in odd pieces, against qemu.
  void expect_same_as_qemu(const std::string& name) {
    const Bytes expected = qemu_content(name);
    EXPECT_TRUE(varve_content(name, 32 << 20) == expected) << name << " in pieces of 32 MiB";
    EXPECT_TRUE(varve_content(name, 70'001) == expected) << name << " in pieces of 70,001";
  }
};

TEST_F(ChainReads, WhatQemuWroteByteForByte) {
  qemu_img("create -f qcow2 a.qcow2 20M");
  scribble("a.qcow2", 20 << 20, 80);
  expect_same_as_qemu("a.qcow2");
}

TEST_F(ChainReads, SizesThatAreNoMultipleOfACluster) {
  for (const uint64_t size : {1, 511, 65535, 65537, 5'000'001}) {
    qemu_img(fmt::format("create -f qcow2 a.qcow2 {}", round_up(size, 512)));
    qemu_io("a.qcow2", {fmt::format("write -P 0x61 0 {}", round_up(size, 512))});
    // qemu-img rounds to sectors; the format does not.
    qcow_test::patch_be<uint64_t>(file("a.qcow2"), 24, size);
    const auto chain = open_chain("a.qcow2");
    EXPECT_EQ(chain->size(), size);
    EXPECT_EQ(varve_content("a.qcow2"), Bytes(size, std::byte{0x61}));
  }
}

TEST_F(ChainReads, CompressedClustersOfBothKinds) {
  for (const std::string type : {"zlib", "zstd"}) {
    qemu_img("create -f qcow2 -o compression_type=" + type + " a.qcow2 20M");
    scribble("a.qcow2", 20 << 20, 40);
    qemu_io("a.qcow2", {"write -P 5 1M 2M", "write -P 6 3000k 3M"});
    qemu_img("convert -c -O qcow2 -o compression_type=" + type + " a.qcow2 b.qcow2");
    expect_same_as_qemu("b.qcow2");
    scribble("b.qcow2", 20 << 20, 40);  // data beside compressed clusters
    expect_same_as_qemu("b.qcow2");
  }
}

TEST_F(ChainReads, EveryClusterSizeAndRefcountWidth) {
  for (const std::string options :
       {"cluster_size=512", "cluster_size=1k,refcount_bits=1", "cluster_size=4k,refcount_bits=64",
        "cluster_size=32k", "cluster_size=256k,refcount_bits=8", "cluster_size=2M"}) {
    qemu_img("create -f qcow2 -o " + options + " a.qcow2 9M");
    scribble("a.qcow2", 9 << 20, 60);
    expect_same_as_qemu("a.qcow2");
    qemu_img("convert -c -O qcow2 -o " + options + " a.qcow2 b.qcow2");
    expect_same_as_qemu("b.qcow2");
  }
}

TEST_F(ChainReads, Version2Images) {
  qemu_img("create -f qcow2 -o compat=0.10 a.qcow2 10M");
  scribble("a.qcow2", 10 << 20, 40);
  qemu_img("create -f qcow2 -o compat=0.10 -b a.qcow2 -F qcow2 b.qcow2");
  scribble("b.qcow2", 10 << 20, 40);
  expect_same_as_qemu("b.qcow2");
}

TEST_F(ChainReads, TheActiveLayerOfAnImageWithInternalSnapshots) {
  qemu_img("create -f qcow2 a.qcow2 10M");
  scribble("a.qcow2", 10 << 20, 30);
  qemu_img("snapshot -c one a.qcow2");
  scribble("a.qcow2", 10 << 20, 30);
  qemu_img("snapshot -c two a.qcow2");
  scribble("a.qcow2", 10 << 20, 10);
  EXPECT_EQ(header("a.qcow2").snapshot_count, 2u);
  expect_same_as_qemu("a.qcow2");
}

TEST_F(ChainReads, PreallocatedImages) {
  qemu_img("create -f qcow2 -o preallocation=metadata a.qcow2 10M");
  expect_same_as_qemu("a.qcow2");
  qemu_io("a.qcow2", {"write -P 7 1M 70000"});
  expect_same_as_qemu("a.qcow2");
}

TEST_F(ChainReads, ChainsOfOneToFiveLayersOfManyShapes) {
  qemu_img("create -f qcow2 l0.qcow2 12M");
  scribble("l0.qcow2", 12 << 20, 60);
  qemu_img("convert -c -O qcow2 l0.qcow2 l1.qcow2");
  uint64_t size = 12 << 20;
  const std::vector<std::string> options = {"", "-o cluster_size=4k", "-o cluster_size=512k",
                                            "-o cluster_size=512"};
  for (int depth = 2; depth <= 5; ++depth) {
    size += depth * 300 * 512;  // grown overlays
    const std::string name = fmt::format("l{}.qcow2", depth);
    qemu_img(fmt::format("create -f qcow2 {} -b l{}.qcow2 -F qcow2 {} {}", options[depth - 2],
                         depth - 1, name, size));
    scribble(name, size, 40);
    expect_same_as_qemu(name);
    EXPECT_EQ(open_chain(name)->layer_count(), static_cast<size_t>(depth));
  }
}

TEST_F(ChainReads, Bc3ShorterParentsEndInZeroesAndLongerOnesAreCut) {
  // 3 MiB, on 1 MiB and 37 sectors, on 2 MiB: the lowest must not shine through past the middle.
  qemu_img("create -f qcow2 low.qcow2 2M");
  qemu_io("low.qcow2", {"write -P 1 0 2M"});
  qemu_img(fmt::format("create -f qcow2 -b low.qcow2 -F qcow2 mid.qcow2 {}", 1'048'576 + 37 * 512));
  qemu_img("create -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 3M");
  expect_same_as_qemu("top.qcow2");
  const Bytes content = varve_content("top.qcow2");
  EXPECT_EQ(content[1'048'576 + 37 * 512 - 1], std::byte{1});
  EXPECT_EQ(content[1'048'576 + 37 * 512], std::byte{0});
}

TEST_F(ChainReads, ZeroesOverAParentHideIt) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 9 0 1M"});
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2");
  qemu_io("b.qcow2", {"write -z 128k 64k", "write -z -u 300k 100k", "discard 512k 64k"});
  expect_same_as_qemu("b.qcow2");
}

TEST_F(ChainReads, ReadsPastTheEndAreZeroes) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 9 0 1M"});
  const auto chain = open_chain("a.qcow2");
  Bytes into(4096, std::byte{0xee});
  run(chain->read((1 << 20) - 1024, into));
  EXPECT_EQ(into[1023], std::byte{9});
  EXPECT_EQ(into[1024], std::byte{0});
  run(chain->read(uint64_t{1} << 40, into));
  EXPECT_EQ(into, Bytes(4096));
}

TEST_F(ChainReads, ManyReadsAtOnceBuildARegionOnce) {
  qemu_img("create -f qcow2 a.qcow2 20M");
  scribble("a.qcow2", 20 << 20, 60);
  const Bytes expected = qemu_content("a.qcow2");
  const auto chain = open_chain("a.qcow2");
  Bytes content(expected.size(), std::byte{0xee});
  const auto read_all = [&](io::TaskScope& scope) -> io::Task<void> {
    for (uint64_t at = 0; at < content.size(); at += 1 << 20) {
      scope.spawn(chain->read(at, std::span(content).subspan(at, 1 << 20)));
    }
    co_return;
  };
  run(io::run_scoped(read_all));
  EXPECT_TRUE(content == expected);
}

TEST_F(ChainReads, TheMapStaysWithinItsBudget) {
  qemu_img("create -f qcow2 -o cluster_size=64k a.qcow2 100G");
  std::vector<std::string> commands;
  for (int i = 0; i < 100; ++i) commands.push_back(fmt::format("write -P {} {}G 64k", i + 1, i));
  qemu_io("a.qcow2", commands);
  const auto chain = open_chain("a.qcow2", {.map_bytes_max = 300'000});
  for (int round = 0; round < 2; ++round) {
    for (uint64_t i = 0; i < 100; ++i) {
      Bytes into(100);
      run(chain->read(i << 30, into));
      EXPECT_EQ(into, Bytes(100, std::byte(i + 1)));
      EXPECT_LE(chain->map().memory_bytes(), 300'000u);
    }
  }
  EXPECT_EQ(chain->map().regions_built(), 200u);
}

TEST_F(ChainReads, LongChainsBuildNoMoreThanOneTablePerRegionAndStoringLayer) {
  make_long_chain(64, 1 << 30);
  qemu_io("c0.qcow2", {"write -P 1 0 1M"});
  qemu_io("c63.qcow2", {"write -P 2 64k 64k"});
  const auto chain = open_chain("c63.qcow2");
  EXPECT_EQ(chain->layer_count(), 64u);
  Bytes into(256 << 10);
  for (int i = 0; i < 10; ++i) run(chain->read(0, into));
  EXPECT_EQ(chain->map().regions_built(), 1u);
  EXPECT_EQ(into[0], std::byte{1});
  EXPECT_EQ(into[65536], std::byte{2});
  EXPECT_EQ(into[131072], std::byte{1});
}

TEST_F(ChainReads, RefusesToWrite) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  const auto chain = open_chain("a.qcow2");
  try {
    run(chain->write_zeroes(512, 1024, io::ZeroMode::may_unmap));
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EPERM);
    EXPECT_EQ(std::string(error.what()).substr(0, 42),
              "write zeroes a.qcow2 @512+1024: read-only:");
  }
  EXPECT_THROW(run(chain->discard(0, 512)), std::system_error);
  EXPECT_THROW(run(chain->write(0, io::Buffer())), std::system_error);
}

class ChainExtents : public qcow_test::ImageFiles {
 protected:
  /// "length:depth[z] …" over the whole disk, gathered from calls for at most `count_max`.
  std::string extents(const Chain& constant, size_t count_max) {
    Chain& chain = const_cast<Chain&>(constant);
    std::vector<io::Extent> all;
    for (uint64_t at = 0; at < chain.size();) {
      const auto piece = run(chain.extents(at, chain.size() - at, count_max));
      EXPECT_GE(piece.size(), 1u);
      EXPECT_LE(piece.size(), count_max);
      for (const io::Extent& extent : piece) {
        at += extent.length;
        if (!all.empty() && all.back().same_kind(extent)) {
          all.back().length += extent.length;
        } else {
          all.push_back(extent);
        }
      }
    }
    std::string text;
    for (const io::Extent& extent : all) {
      text += fmt::format("{}k:{}{} ", extent.length / 1024, extent.depth, extent.zero ? "z" : "");
    }
    return text;
  }
};

TEST_F(ChainExtents, TellDepthAndZeroes) {
  qemu_img("create -f qcow2 a.qcow2 2M");
  qemu_io("a.qcow2", {"write -P 1 0 256k", "write -z 512k 128k"});
  qemu_img("create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2 3M");
  qemu_io("b.qcow2", {"write -P 2 64k 64k", "write -z 128k 64k", "write -P 3 2176k 64k"});
  const auto chain = open_chain("b.qcow2");
  const std::string expected = "64k:2 64k:1 64k:1z 64k:2 256k:0z 128k:2z 1536k:0z 64k:1 832k:0z ";
  EXPECT_EQ(extents(*chain, 1000), expected);
  EXPECT_EQ(extents(*chain, 1), expected);
  EXPECT_EQ(extents(*chain, 2), expected);
}

TEST_F(ChainExtents, StartAndEndInsideClusters) {
  qemu_img("create -f qcow2 a.qcow2 1M");
  qemu_io("a.qcow2", {"write -P 1 64k 64k"});
  const auto chain = open_chain("a.qcow2");
  const auto extents = run(chain->extents(65000, 1000, 10));
  ASSERT_EQ(extents.size(), 2u);
  EXPECT_EQ(extents[0].length, 536u);
  EXPECT_EQ(extents[1].length, 464u);
  EXPECT_TRUE(extents[0].zero);
  EXPECT_FALSE(extents[1].zero);
}

TEST_F(ChainExtents, OfAnEmpty8TibDiskAreOneAnswer) {
  qemu_img("create -f qcow2 a.qcow2 8T");
  const auto chain = open_chain("a.qcow2");
  const auto extents = run(chain->extents(0, uint64_t{8} << 40, 65536));
  ASSERT_EQ(extents.size(), 1u);
  EXPECT_EQ(extents[0].length, uint64_t{8} << 40);
  EXPECT_EQ(chain->map().regions_built(), 0u);
}

}  // namespace
}  // namespace qcow
