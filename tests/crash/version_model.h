// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/crash/disk.h"

namespace crash {

/// What clients did to a guest disk, sector by sector: every version that each sector has had, when
/// it was sent, when it was acknowledged, and when it became durable by the promise.
///
/// Times are moments of the Disk. Operations under way never share a sector, so the
/// versions of a sector have one order.
class VersionModel {
 public:
  /// `content` is on the disk and durable.
  explicit VersionModel(Bytes content);

  const Bytes& content() const { return content_; }
  uint64_t size() const { return content_.size(); }

  /// An operation is sent that gives the range this content. Its sectors are busy until the end.
  uint64_t begin(uint64_t now, uint64_t offset, std::span<const std::byte> bytes);
  void acknowledged(uint64_t now, uint64_t change);
  /// It never was acknowledged, and never will be.
  void failed(uint64_t change);
  /// This change is durable from now on (the reply to a write with FUA).
  void durable(uint64_t now, uint64_t change);
  /// A flush that was sent at `sent` has been answered.
  void flushed(uint64_t sent, uint64_t answered);
  bool busy(uint64_t offset, uint64_t length) const;
  /// These sectors are not judged any more.
  void ignore(uint64_t offset, uint64_t length);
  bool ignores(uint64_t offset) const { return sectors_[offset / kSector].empty(); }

  /// The process was killed and the disk read again: what it holds now is all there is.
  void restarted(uint64_t now, const Bytes& found);

  /// What is wrong with a disk that was cut off at the moment `cut`; nothing when it is right.
  std::optional<std::string> judge(const Bytes& found, uint64_t cut) const;
  /// The same for the same promises: judging a disk twice under one key is idle.
  uint64_t promises(uint64_t cut) const;

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};
  struct Version {
    uint64_t hash = 0;
    uint64_t sent = 0;
    uint64_t acknowledged = kNever;
    uint64_t durable = kNever;
  };
  struct Change {
    uint64_t first = 0, end = 0;      // sectors
    std::vector<uint32_t> version{};  // of each of them
  };

  static uint64_t hash(std::span<const std::byte> sector);
  std::span<const std::byte> sector_of(const Bytes& bytes, uint64_t sector) const;
  uint64_t last_flush_sent(uint64_t cut) const;
  void release(const Change& change);

  Bytes content_;
  std::vector<std::vector<Version>> sectors_;
  std::vector<bool> busy_;
  std::vector<Change> changes_;
  struct Flush {
    uint64_t sent, answered;
  };
  std::vector<Flush> flushes_;
};

}  // namespace crash
