// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "nbd/export_table.h"
#include "nbd/meta_context.h"
#include "nbd/refusal.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

// The small parts between codec and session.

namespace nbd {
namespace {

TEST(Refusals, NameNoServerPath) {  // H12
  EXPECT_EQ(without_paths("write /srv/backup/vm/disk0.qcow2 @65536+4096: No space"),
            "write disk0.qcow2 @65536+4096: No space");
  EXPECT_EQ(without_paths("open \"/a/b c\": no"), "open \"b c\": no");
  EXPECT_EQ(without_paths("export \"vm/disk-0@p\" 3/4"), "export \"vm/disk-0@p\" 3/4");
  EXPECT_EQ(without_paths(""), "");
  EXPECT_EQ(without_paths("/"), "");
}

TEST(Refusals, ComeFromWhateverWasThrown) {
  EXPECT_EQ(refusal_for(std::make_exception_ptr(std::bad_alloc())).error, WireError::enomem);
  EXPECT_EQ(refusal_for(std::make_exception_ptr(std::runtime_error("bad /x/y"))).text, "bad y");
  EXPECT_EQ(refusal_for(std::make_exception_ptr(7)).error, WireError::eio);
}

class Parts : public support::RingTest {
 protected:
  std::shared_ptr<Export> make(const std::string& name) {
    return Export::make({.name = name}, device_, runtime());
  }
  support::MemoryDevice device_{4096};
  ExportTable table_;
};

TEST_F(Parts, TableKnowsNamesAndAliases) {
  const auto one = make("one"), two = make("two");
  table_.add(one);
  table_.add(two);
  table_.add_alias("latest", one);
  EXPECT_THROW(table_.add(make("one")), std::system_error);
  EXPECT_THROW(table_.add(make("latest")), std::system_error);
  EXPECT_THROW(table_.add_alias("two", one), std::system_error);
  EXPECT_EQ(table_.find("latest"), one);
  table_.add_alias("latest", two);
  EXPECT_EQ(table_.find("latest"), two);
  EXPECT_EQ(table_.list().size(), 2u);
  EXPECT_FALSE(table_.remove(*make("two")));
  EXPECT_TRUE(table_.remove(*two));
  EXPECT_EQ(table_.find("two"), nullptr);
  EXPECT_EQ(table_.find("latest"), nullptr);
}

TEST_F(Parts, ExportNamesAreCheckedWhenMade) {  // H5
  EXPECT_THROW(make(std::string(4097, 'a')), ProtocolError);
  EXPECT_THROW(make("\xff"), ProtocolError);
}

TEST_F(Parts, BlockSizeStaysWithinWhatClientsTake) {  // B2
  support::MemoryDevice small(4096, 512), large(4096, 4 << 20);
  EXPECT_EQ(Export::make({.name = "s"}, small, runtime())->preferred_block_size(), 4096u);
  EXPECT_EQ(Export::make({.name = "l"}, large, runtime())->preferred_block_size(), 2u << 20);
}

class Contexts : public Parts {
 protected:
  using Cluster = support::MemoryDevice::Cluster;
  using Runs = std::vector<StatusRun>;
  static constexpr uint64_t kCluster = 65536;

  /// What one context says of the whole of `device`.
  Runs status(support::MemoryDevice& device, const MetaContext& context, bool one = false) {
    return run(block_status(device, {&context}, 0, device.size(), one, runtime(), {})).at(0);
  }
};

TEST_F(Contexts, ChangesSinceAnAncestorAreWhatNewerLayersHold) {  // M3
  support::MemoryDevice disk(4 * kCluster);
  disk.preset(0, kCluster, 1, Cluster::data);                    // this image
  disk.preset(kCluster, kCluster, 0, Cluster::zero);             // this image
  disk.preset(2 * kCluster, kCluster, 1, Cluster::parent_data);  // its parent
  const std::vector<Ancestor> ancestors = {{"b2", disk.size()}, {"b1", disk.size()}};
  const MetaContexts contexts = change_contexts(ancestors);
  ASSERT_EQ(contexts.size(), 2u);
  EXPECT_EQ(contexts[0]->name(), "qemu:dirty-bitmap:since-b2");
  EXPECT_EQ(contexts[1]->name(), "qemu:dirty-bitmap:since-b1");
  EXPECT_EQ(status(disk, *contexts[0]), (Runs{{2 * kCluster, 1}, {2 * kCluster, 0}}));
  EXPECT_EQ(status(disk, *contexts[1]), (Runs{{3 * kCluster, 1}, {kCluster, 0}}));
  EXPECT_EQ(status(disk, *contexts[1], true), (Runs{{3 * kCluster, 1}}));
}

TEST_F(Contexts, WhatLiesBehindTheEndOfAShorterLayerHasChanged) {  // M3, BC3
  support::MemoryDevice disk(4 * kCluster);
  // The disk shrank after b1 and grew again: nobody wrote the zeroes behind b2's end.
  const std::vector<Ancestor> ancestors = {
      {"b2", kCluster + 512}, {"b1", 4 * kCluster}, {"", 4 * kCluster}, {"b0", 512}};
  const MetaContexts contexts = change_contexts(ancestors);
  ASSERT_EQ(contexts.size(), 3u);  // a layer without a name has no context, and counts
  const Runs shrunk = {{kCluster + 512, 0}, {3 * kCluster - 512, 1}};
  EXPECT_EQ(status(disk, *contexts[0]), shrunk);
  EXPECT_EQ(status(disk, *contexts[1]), shrunk);
  EXPECT_EQ(status(disk, *contexts[2]), (Runs{{512, 0}, {4 * kCluster - 512, 1}}));
}

TEST_F(Contexts, OneWalkAnswersForAllOfThem) {  // M8, M10
  support::MemoryDevice disk(64 * kCluster);
  for (uint64_t at = 0; at < disk.size(); at += 2 * kCluster) {
    disk.preset(at, kCluster, 1, Cluster::data);
  }
  support::FaultyDevice counted(disk, ring());
  const std::vector<Ancestor> ancestors(60, Ancestor{"b", disk.size()});
  MetaContexts contexts = change_contexts(ancestors);
  std::vector<const MetaContext*> all;
  for (const auto& context : contexts) all.push_back(context.get());
  const auto answers = run(block_status(counted, all, 0, disk.size(), false, runtime(), {}));
  EXPECT_EQ(counted.calls(support::FaultyDevice::Verb::extents), 1u);
  ASSERT_EQ(answers.size(), 60u);
  for (const Runs& runs : answers) EXPECT_EQ(runs.size(), 64u);
  // The bound is that of the whole answer.
  const auto few =
      run(block_status(counted, all, 0, disk.size(), false, runtime(), {.runs_max = 120}));
  for (const Runs& runs : few) EXPECT_EQ(runs.size(), 2u);
  const auto least =
      run(block_status(counted, all, 0, disk.size(), false, runtime(), {.runs_max = 1}));
  for (const Runs& runs : least) EXPECT_EQ(runs.size(), 1u);
}

}  // namespace
}  // namespace nbd
