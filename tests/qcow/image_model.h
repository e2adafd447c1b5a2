// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "qcow/image/create.h"
#include "qcow/image/image.h"
#include "tests/qcow/image_files.h"
#include "tests/support/faulty_file_system.h"

/// A writable image beside a flat model of its disk: every operation goes to both, and every answer
/// is compared. qemu's tools have the last word.
namespace qcow_test {

/// Of the images made here, where a test does not say otherwise.
constexpr uint64_t kCluster = 65536;

class ImageModel : public ImageFiles {
 protected:
  struct Shape {
    uint64_t size = 0;
    uint32_t cluster_bits = 16;
    uint32_t refcount_order = 4;
    std::string parent;  ///< file name, or empty
  };

  /// VARVE_TEST_SEED, where given, replaces the fixed seed.
  void SetUp() override;
  void TearDown() override;

  /// The runtime that images are opened with: files that ask faults_ first.
  io::Runtime faulty_runtime() {
    const io::Runtime real = runtime();
    return {real.executor, real.clock, faulty_files_, real.buffers, real.random};
  }

  /// Makes an image; its model starts as the parent's disk, cut or grown.
  void create(const std::string& name, Shape shape);
  void open(const std::string& name, qcow::ImageOptions options = qcow::ImageOptions());
  void close();

  void write(uint64_t offset, Bytes bytes);
  void write_random(uint64_t offset, uint64_t length);
  void zero(uint64_t offset, uint64_t length, io::ZeroMode mode = io::ZeroMode::may_unmap);
  void discard(uint64_t offset, uint64_t length);
  void flush();
  Bytes read(uint64_t offset, uint64_t length);
  void expect_reads_as_model();

  /// The error number of the std::system_error that `action` throws; 0 when it throws none.
  static int error_of(const std::function<void()>& action);

  /// Tasks for many at once; the model is changed at once.
  io::Task<void> write_task(uint64_t offset, Bytes bytes);

  /// After close(): no error and no leak, the model's content, no more file than allowed.
  void expect_valid(const std::string& name);
  std::string check(const std::string& name);

  /// `count` random operations, aligned to `alignment`.
  void random_operations(int count, uint64_t alignment);
  /// Random operations side by side on disjoint ranges that share clusters.
  void random_concurrent_writes(int count, uint64_t alignment);

  uint64_t random_below(uint64_t end) { return end == 0 ? 0 : random_() % end; }

  support::FileFaults faults_;
  support::FaultyFileSystem faulty_files_{runtime().files, faults_};
  std::unique_ptr<qcow::Image> image_;
  std::string name_;
  Bytes model_;
  uint64_t cluster_bytes_ = 65536;

 private:
  Bytes random_content(uint64_t length);
};

}  // namespace qcow_test
