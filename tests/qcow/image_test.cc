// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/image.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/task_scope.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;

class ImageWrites : public qcow_test::ImageModel {};

TEST_F(ImageWrites, WholeClustersThatQemuReads) {
  create("a.qcow2", {.size = 10 << 20});
  open("a.qcow2");
  write_random(65536, 2 << 20);
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageWrites, PartialClustersAtOneByteAlignment) {
  create("a.qcow2", {.size = 1'000'001});
  open("a.qcow2");
  write(7, Bytes(1, std::byte{1}));
  write(65530, Bytes(100, std::byte{2}));
  write(1'000'000, Bytes(1, std::byte{3}));
  expect_reads_as_model();
  close();
  expect_valid("a.qcow2");
}

/// Random operations against the model, over parents, with sizes and shapes of all kinds.
struct RandomCase {
  const char* name;
  uint64_t size;
  uint32_t cluster_bits;
  uint32_t refcount_order;
  int parents;
  uint64_t alignment;
  int operations;
};

class RandomImages : public ImageWrites, public ::testing::WithParamInterface<RandomCase> {};

TEST_P(RandomImages, EqualTheirModel) {
  const RandomCase& shape = GetParam();
  std::string parent;
  for (int layer = 0; layer <= shape.parents; ++layer) {
    // Every layer is larger than the one below, and sizes are no cluster multiples.
    const uint64_t size = shape.size + static_cast<uint64_t>(layer) * (70'000 / 512 * 512);
    const std::string name = fmt::format("layer{}.qcow2", layer);
    create(name, {size, shape.cluster_bits, shape.refcount_order, parent});
    ImageOptions options;
    options.tuning.partial_bytes = layer % 2 == 0 ? 8 << 20 : 4 * cluster_bytes_;
    options.commit_interval = std::chrono::milliseconds(20);
    open(name, options);
    random_operations(shape.operations, shape.alignment);
    expect_reads_as_model();
    if (layer % 2 == 0) {
      close();
      open(name, options);
      expect_reads_as_model();
      random_operations(shape.operations, shape.alignment);
      expect_reads_as_model();
    }
    close();
    expect_valid(name);
    parent = name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RandomImages,
    ::testing::Values(RandomCase{"Full", 5'000'001, 16, 4, 0, 1, 150},
                      RandomCase{"FullSectors", 6 << 20, 16, 4, 0, 512, 150},
                      RandomCase{"OverParents", 3 << 20, 16, 4, 3, 1, 60},
                      RandomCase{"OverParentsSectors", 3'000'320, 16, 4, 2, 512, 60},
                      RandomCase{"TinyClusters", 300'000, 9, 6, 1, 1, 150},
                      RandomCase{"TinyClustersNarrowRefcounts", 300'000, 9, 0, 1, 1, 150},
                      RandomCase{"SmallClusters", 1 << 20, 12, 3, 2, 1, 100},
                      RandomCase{"LargeClusters", 9'000'000, 21, 5, 1, 512, 40}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace qcow
