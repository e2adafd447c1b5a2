// SPDX-License-Identifier: Apache-2.0
#include "io/task_scope.h"
#include "qcow/check/check.h"
#include "tests/qcow/image_model.h"

namespace qcow {
namespace {

using qcow_test::Bytes;
using qcow_test::kCluster;

class ImageSeal : public qcow_test::ImageModel {};

TEST_F(ImageSeal, RefusesWritesAndGoesOnReading) {  // D7, PU1
  create("a.qcow2", {.size = 2 << 20});
  open("a.qcow2");
  write_random(1000, 1 << 20);
  const SealedImage sealed = run(image_->seal());
  EXPECT_EQ(sealed.file_bytes, qcow_test::file_bytes(file("a.qcow2")));
  EXPECT_EQ(error_of([&] { write(0, Bytes(1)); }), EPERM);
  model_[0] = std::byte{0};
  EXPECT_EQ(error_of([&] { discard(0, 1); }), EPERM);
  flush();
  expect_reads_as_model();
  Sha256 hash{};
  hash[5] = std::byte{42};
  run(image_->publish_header(hash, 1'700'000'000));
  run(image_->publish_header(hash, 1'700'000'000));
  close();
  expect_valid("a.qcow2");
  const Header published = header("a.qcow2");
  EXPECT_TRUE(published.sealed());
  ASSERT_TRUE(published.record);
  EXPECT_TRUE(published.record->published());
  EXPECT_EQ(published.record->manifest_hash, hash);
  EXPECT_EQ(published.record->publish_time, 1'700'000'000u);
  EXPECT_NE(qcow_test::refusal_of([&] { open("a.qcow2"); }), "(not refused)");
}

TEST_F(ImageSeal, APublishedImageWhoseSealBitAnotherProgramHasClearedIsNotOpenedForWriting) {
  create("a.qcow2", {.size = 2 << 20});
  open("a.qcow2");
  write_random(0, 1 << 20);
  run(image_->seal());
  run(image_->publish_header(Sha256{}, 1'700'000'000));
  close();
  const auto repaired = support::run_command("qemu-img check -r all " + file("a.qcow2"));
  ASSERT_TRUE(repaired.ok()) << repaired.output;
  ASSERT_FALSE(header("a.qcow2").sealed());
  EXPECT_NE(qcow_test::refusal_of([&] { open("a.qcow2"); }).find("is a published restore point"),
            std::string::npos);
}

TEST_F(ImageSeal, OfAThinDiskLeavesLittleMoreThanItsData) {
  constexpr uint64_t kData = 16 << 20;
  create("a.qcow2", {.size = 512 << 20});
  open("a.qcow2");
  write_random(0, kData);
  run(image_->seal());
  EXPECT_LE(qcow_test::stored_bytes(file("a.qcow2")), kData + kData / 200);
  expect_reads_as_model();
  run(image_->publish_header(Sha256{}, 1'700'000'000));
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageSeal, WaitsForWritesUnderWay) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(50'000));  // the next ones find space in the file, and are under way at once
  auto both = [&](io::TaskScope& scope) -> io::Task<void> {
    for (int i = 0; i < 16; ++i) {
      scope.spawn(write_task(static_cast<uint64_t>(i) * 100'000, Bytes(50'000, std::byte{3})));
    }
    co_await image_->seal();
  };
  run(io::run_scoped(both));
  close();
  expect_valid("a.qcow2");
}

TEST_F(ImageSeal, FlushesShareACommit) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(1 << 20, std::byte{1}));
  auto many = [&](io::TaskScope& scope) -> io::Task<void> {
    for (int i = 0; i < 20; ++i) scope.spawn(image_->flush());
    co_return;
  };
  run(io::run_scoped(many));
  EXPECT_LE(image_->counters().commits, 2u);
  const uint64_t commits = image_->counters().commits;
  flush();
  EXPECT_EQ(image_->counters().commits, commits) << "nothing changed, nothing written";
  close();
}

TEST_F(ImageSeal, AbandonedImagesStopAtOnce) {
  create("a.qcow2", {.size = 4 << 20});
  open("a.qcow2");
  write(0, Bytes(1 << 20, std::byte{1}));
  run(image_->abandon());
  EXPECT_EQ(error_of([&] { write(0, Bytes(1)); }), ECANCELED);
  image_.reset();
  EXPECT_EQ(run(qcow::check(runtime(), file("a.qcow2"), CheckOptions())).corruptions, 0u);
}

class ImageRecovery : public qcow_test::ImageModel {};

TEST_F(ImageRecovery, OfAnImageWithTwoOwnersOfOneClusterMarksItCorruptAndRefuses) {  // FB2, DU9
  create("a.qcow2", {.size = 1 << 20});
  open("a.qcow2");
  write_random(0, 128 << 10);
  close();
  const std::string path = file("a.qcow2");
  constexpr uint64_t kL1Field = 40, kOffsetBits = 0x00fffffffffffe00;
  const auto l1_table = qcow_test::peek_be<uint64_t>(path, kL1Field);
  const uint64_t l2_table = qcow_test::peek_be<uint64_t>(path, l1_table) & kOffsetBits;
  qcow_test::patch_be<uint64_t>(path, l2_table + 8, qcow_test::peek_be<uint64_t>(path, l2_table));
  EXPECT_EQ(qcow_test::refusal_of([&] { open("a.qcow2"); }),
            "\"a.qcow2\": two owners of one host cluster; marked corrupt");
  EXPECT_EQ(qcow_test::peek_be<uint64_t>(path, 72), 2u);
  EXPECT_NE(support::run_command("qemu-img check " + path).output.find("refcount=1 reference=2"),
            std::string::npos);
}

}  // namespace
}  // namespace qcow
