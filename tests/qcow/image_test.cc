#include "qcow/image.h"

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

}  // namespace
}  // namespace qcow
