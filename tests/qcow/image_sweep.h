// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "qcow/image/image.h"
#include "tests/qcow/image_files.h"

/// A script of some 500 operations on an image with small clusters, and the judge of what must be
/// there after one of them failed.
namespace qcow_test {

/// What each sector may hold: the version that the last flush made durable, or a later one.
class SectorVersions {
 public:
  static constexpr uint64_t kSector = 512;

  explicit SectorVersions(const Bytes& durable)
      : content_(durable), later_(durable.size() / kSector) {}

  /// `bytes` are about to be written.
  void begin(uint64_t offset, std::span<const std::byte> bytes);
  /// Everything begun so far is durable.
  void flushed();
  /// The content when nothing was lost.
  const Bytes& newest() const { return content_; }

  /// The same of what the image itself reads, from `offset` on: the newest version, or the one
  /// before it where `failed`, which may be null, was to change it.
  std::string judge_read(uint64_t offset, std::span<const std::byte> found,
                         const struct Step* failed) const;

  /// "" or what is wrong: a sector that holds none of its versions.
  std::string judge(const Bytes& found) const;

 private:
  std::span<const std::byte> sector(const Bytes& disk, uint64_t index) const {
    return std::span(disk).subspan(index * kSector, kSector);
  }

  Bytes content_;
  /// Versions older than content_ that may still be there, the durable one first.
  std::vector<std::vector<Bytes>> later_;
};

struct Step {
  enum class Kind : uint8_t { write, two_writes, zero, discard, flush, read };
  Kind kind = Kind::flush;
  uint64_t offset = 0;
  uint64_t other_offset = 0;  ///< of the second of two writes
  Bytes bytes;                ///< of each write; its size is the length of the others
};

/// Always the same for the same numbers.
std::vector<Step> make_script(uint64_t seed, size_t count, uint64_t disk_bytes);

/// How a script ended.
struct ScriptResult {
  SectorVersions versions;
  std::exception_ptr failure;  ///< of the first step that threw, and was not a read
  std::string step;            ///< its place, for texts
  size_t failed_reads = 0;
  const Step* failed_step = nullptr;  ///< the one that threw
};

/// Told with true before the image is called, and with false when it has answered: what a test lets
/// fail is to fail there, and not in the test.
using Around = std::function<void(bool armed)>;

/// Runs the script until a step throws, then tells. A read may fail without harm to the rest.
io::Task<void> run_script(io::Runtime runtime, qcow::Image& image, const std::vector<Step>& script,
                          const Around& around, ScriptResult& result);

}  // namespace qcow_test
