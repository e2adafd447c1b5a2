// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qcow/check/check.h"
#include "qcow/image/create.h"
#include "tests/qcow/image_sweep.h"

/// What the sweeps share: the images, the script, and the judgement after something has failed.
namespace qcow {

using qcow_test::Bytes;
using qcow_test::ScriptResult;
using qcow_test::SectorVersions;

inline constexpr size_t kSteps = 500;
inline constexpr uint64_t kSeed = 4711;
inline constexpr Sha256 kManifestHash{std::byte{9}};

struct SweepShape {
  const char* name;
  uint64_t disk_bytes;
  uint32_t cluster_bits;
  uint32_t refcount_order;
  bool overlay;
};

/// Tables that grow all the time; an overlay whose partial clusters are filled from a parent; and
/// partial clusters over zeroes, of which only the bytes are written.
inline constexpr SweepShape kShapes[] = {{"GrowingTables", 256 << 10, 9, 6, false},
                                         {"Overlay", 512 << 10, 12, 4, true},
                                         {"Sparse", 512 << 10, 13, 4, false}};

inline size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

inline bool is_long() { return std::getenv("VARVE_LONG") != nullptr; }

class Sweep : public qcow_test::ImageFiles, public ::testing::WithParamInterface<SweepShape> {
 protected:
  void SetUp() override {
    script_ = qcow_test::make_script(kSeed, kSteps, GetParam().disk_bytes);
    base_.resize(GetParam().disk_bytes);
    if (!GetParam().overlay) return;
    CreateOptions parent;
    parent.virtual_size = GetParam().disk_bytes;
    parent.image_uuid[0] = std::byte{7};
    run(create(runtime(), file("parent.qcow2"), parent));
    auto image = run(Image::open(runtime(), file("parent.qcow2"), ImageOptions()));
    base_ = qcow_test::random_bytes(random_, base_.size());
    io::Buffer buffer = runtime().buffers.try_acquire(base_.size());
    std::copy(base_.begin(), base_.end(), buffer.data());
    run(image->write(0, std::move(buffer)));
    run(image->close());
  }

  /// A copy, for create() waits for the disk.
  void fresh_image() {
    if (!std::filesystem::exists(file("fresh.qcow2"))) create_fresh_image();
    std::filesystem::copy_file(file("fresh.qcow2"), file("a.qcow2"),
                               std::filesystem::copy_options::overwrite_existing);
  }

  void create_fresh_image() {
    CreateOptions options;
    options.virtual_size = GetParam().disk_bytes;
    options.cluster_bits = GetParam().cluster_bits;
    options.refcount_order = GetParam().refcount_order;
    options.image_uuid[0] = std::byte{1};
    if (GetParam().overlay) {
      options.parent = NewParent{.name = "parent.qcow2"};
      options.parent->uuid[0] = std::byte{7};
    }
    run(create(runtime(), file("fresh.qcow2"), options));
  }

  static ImageOptions image_options() {
    ImageOptions options;
    options.commit_interval = std::chrono::hours(1);  // the same calls each time
    options.commit_bytes = 100'000;
    options.tuning.refcount_cover_bytes = 200'000;
    options.tuning.sparse_unit_bytes = 512;
    options.tuning.sparse_write_cost_bytes = 512;
    return options;
  }

  /// Opens, runs the script, seals and publishes.
  ScriptResult run_all(io::Runtime with, const qcow_test::Around& around) {
    ScriptResult result{SectorVersions(base_), nullptr, "", 0, nullptr};
    std::unique_ptr<Image> image;
    const std::string path = file("a.qcow2");
    const auto try_step = [&](const char* name, const std::function<void()>& step) {
      around(true);
      try {
        step();
      } catch (...) {
        result.failure = std::current_exception();
      }
      around(false);
      if (result.failure) result.step = name;
    };
    try_step("open", [&] { image = run(Image::open(with, path, image_options())); });
    if (!image) return result;
    run(qcow_test::run_script(with, *image, script_, around, result));
    if (!result.failure) {
      try_step("seal", [&] { run(image->seal()); });
      if (!result.failure) result.versions.flushed();
    }
    if (!result.failure) {
      try_step("publish", [&] { run(image->publish_header(kManifestHash, 1'700'000'000)); });
      if (result.failure) expect_sealed_still(*image);
    }
    expect_final(*image, result);
    expect_reads_or_errors(*image, result);
    run(end(*image, around, result));
    return result;
  }

  /// Closes an image in good order, or else abandons it, which must not fail.
  static io::Task<void> end(Image& image, const qcow_test::Around& around, ScriptResult& result) {
    around(true);
    bool closed = false;
    if (!result.failure) {
      try {
        co_await image.close();
        closed = true;
      } catch (...) {
        result.failure = std::current_exception();
        result.step = "close";
      }
    }
    if (closed) around(false);
    io::Task<void> rest = image.abandon();
    co_await std::move(rest);
    around(false);
  }

  /// A point whose header could not be written is not published, or may be published again.
  void expect_sealed_still(Image& image) {
    EXPECT_EQ(image.failure(), nullptr);
    EXPECT_NO_THROW(run(image.publish_header(kManifestHash, 1'700'000'000)));
    EXPECT_TRUE(header("a.qcow2").sealed());
  }

  /// What failed once stays failed, with the first cause.
  void expect_final(Image& image, const ScriptResult& result) {
    if (!result.failure || !image.failure()) return;
    const std::string first = text_of(image.failure());
    try {
      run(image.flush());
      ADD_FAILURE() << "a flush succeeded after " << first;
    } catch (const std::exception& again) {
      EXPECT_EQ(again.what(), first);
    }
  }

  /// After a failure a read throws it, or returns what was acknowledged.
  void expect_reads_or_errors(Image& image, const ScriptResult& result) {
    if (!image.failure()) return;
    constexpr uint64_t kPiece = 2048;
    for (uint64_t offset = 0; offset < base_.size(); offset += kPiece) {
      Bytes found(kPiece);
      try {
        run(image.read(offset, found));
      } catch (const std::exception& again) {
        EXPECT_EQ(again.what(), text_of(image.failure()));
        continue;
      }
      ASSERT_EQ(result.versions.judge_read(offset, found, result.failed_step), "")
          << "after " << result.step << ": " << text_of(image.failure());
    }
  }

  static std::string text_of(const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& cause) {
      return cause.what();
    }
  }

  /// The promise, with the file as it is now and nothing failing any more.
  void expect_promise(const ScriptResult& result, const std::string& where) {
    const CheckResult found = run(check(runtime(), file("a.qcow2"), CheckOptions()));
    EXPECT_EQ(found.corruptions, 0u) << where << ": " << found.findings.front();
    EXPECT_EQ(found.shared_clusters, 0u) << where;
    if (!result.failure) {
      EXPECT_TRUE(found.clean()) << where;
    }
    const auto chain = run(Chain::open(runtime(), file("a.qcow2"), ChainOptions()));
    Bytes disk(base_.size());
    run(chain->read(0, disk));
    EXPECT_EQ(result.versions.judge(disk), "") << where << ", after " << result.step;
    if (result.failure) return;
    EXPECT_EQ(disk, result.versions.newest()) << where;
  }

  std::vector<qcow_test::Step> script_;
  Bytes base_;
};

inline std::string name_of(const ::testing::TestParamInfo<SweepShape>& info) {
  return info.param.name;
}

}  // namespace qcow
