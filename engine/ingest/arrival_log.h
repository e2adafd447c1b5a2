// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ingest/coverage.h"
#include "engine/values/types.h"
#include "io/file.h"
#include "io/runtime.h"
#include "qcow/format/geometry.h"
#include "qcow/format/sums.h"
#include "qcow/format/uuid.h"

namespace engine {

/// What has arrived of a disk since the last save.
struct ArrivalRecord {
  struct Entry {
    qcow::GuestCluster cluster;
    std::optional<qcow::Sum> sum;  ///< nothing: the one before is not true any more
  };
  DiskCounters counters;                ///< of the whole transfer so far
  std::vector<Coverage::Range> ranges;  ///< accepted and durable in the image
  /// Of earlier records: what is sent again may be other bytes than those were.
  std::vector<Coverage::Range> withdrawn;
  std::vector<Entry> sums;  ///< in the order in which the clusters were written
};

/// The file beside an unpublished image that says what of its disk has arrived, so that another job
/// can go on with the transfer.
///
/// Records are appended, each durable before the next; a crash leaves the last one whole or torn,
/// and a torn one is cut off. Nothing in it is believed without a look at the image: ranges say
/// what was sent, sums what the clusters must hold. All integers are big-endian:
///
///     header   magic "VARVARRV" (8), version 1 (4), cluster bits (4), UUID of the image (16)
///     records  magic "ARRV" (4), ranges (4), withdrawn ranges (4), sums (4), counters (8 each),
///              XXH3-64 of the record without itself (8), then ranges (offset 8, length 8), those
///              withdrawn, and sums (cluster 8 with bit 63: forgotten, XXH3-128 16)
///
/// Belongs to one executor thread. Spec: docs/jobs.md, "Resume".
class ArrivalLog {
 public:
  /// A new file; the caller syncs its name. Throws std::system_error, EEXIST too.
  static io::Task<std::unique_ptr<ArrivalLog>> create(io::Runtime runtime, std::string path,
                                                      qcow::Uuid image, uint32_t cluster_bits);
  /// One that an earlier job has left. Throws std::runtime_error when it is not of this image. A
  /// record that names what lies past `capacity_bytes` is not one of this disk: the log ends there.
  static io::Task<std::unique_ptr<ArrivalLog>> open(io::Runtime runtime, std::string path,
                                                    qcow::Uuid image, uint32_t cluster_bits,
                                                    uint64_t capacity_bytes);

  /// Durable on return. After a failure nothing more is appended.
  io::Task<void> append(ArrivalRecord record);

  /// Of an opened one: the union of all ranges, to be taken once, and the last counters.
  Coverage take_arrived() { return std::move(arrived_); }
  const DiskCounters& counters() const { return counters_; }

  /// The last sum of each cluster: [i] of first + i.
  io::Task<std::vector<std::optional<qcow::Sum>>> sums_of(qcow::GuestCluster first, uint64_t count);

 private:
  /// Where a record's sums lie, and of which clusters.
  struct Place {
    uint64_t offset = 0, entries = 0;
    qcow::GuestCluster first, last;  // inclusive
  };

  ArrivalLog(io::Runtime runtime, std::unique_ptr<io::File> file)
      : runtime_(runtime), file_(std::move(file)) {}
  io::Task<void> read_all(const qcow::Uuid& image, uint32_t cluster_bits);
  io::Task<uint64_t> read_record(uint64_t at, uint64_t file_bytes);
  bool is_inside(const ArrivalRecord& record) const;
  void note_place(uint64_t offset, const std::vector<ArrivalRecord::Entry>& sums);

  io::Runtime runtime_;
  std::unique_ptr<io::File> file_;
  uint64_t capacity_bytes_ = 0, cluster_bytes_ = 0;  // of the disk; of an opened one
  uint64_t end_ = 0;                                 // bytes of whole records
  bool failed_ = false;
  Coverage arrived_;
  DiskCounters counters_;
  std::vector<Place> places_;  // oldest first
};

}  // namespace engine
