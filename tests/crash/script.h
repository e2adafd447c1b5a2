// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qcow/image/image.h"
#include "tests/crash/disk.h"
#include "tests/crash/files.h"

namespace crash {

/// One thing that a client does, or that happens to the process.
struct Op {
  enum class Kind : uint8_t {
    write,
    write_fua,
    zero,
    zero_no_hole,
    discard,
    flush,
    read,
    reopen,  ///< the image is closed and opened again
    kill,    ///< the process is killed and a new one opens the image
  };
  Kind kind = Kind::write;
  uint32_t client = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t tag = 0;  ///< of the bytes written
  /// Instead of bytes of its own: what the parents were sent at this place of the disk.
  std::optional<uint64_t> again{};
  bool almost = false;  ///< but for one bit
  bool dropped = false;

  std::string text() const;
  /// Bytes that differ from those of any other op.
  Bytes bytes() const;
};

/// What became of some parents since they were published.
enum class Harm : uint8_t {
  none,
  rotten,            ///< stored clusters read differently
  swapped,           ///< stored clusters have changed places
  lying_manifest,    ///< well-formed, with the checksums of other clusters
  damaged_manifest,  ///< by its own checks
  foreign_manifest,  ///< of another image
  no_manifest,
};

/// What a run is about, decided by its seed: the image, the options, the clients.
struct Shape {
  uint32_t cluster_bits = 9;
  uint32_t refcount_order = 6;
  uint64_t size = 0;      ///< of the disk
  uint64_t hot_size = 0;  ///< clients stay below
  std::vector<uint64_t> parent_sizes;
  bool elides = false;  ///< parents are published, and what they hold is not stored again
  Harm harm = Harm::none;
  bool publishes = false;    ///< the script ends with the image sealed and published
  bool made_in_run = false;  ///< its creation is part of what is cut
  bool small_table = false;  ///< opening it replaces the refcount table
  bool used_before = false;  ///< free clusters full of old bytes
  bool over_nbd = false;
  uint32_t clients = 1;
  uint32_t depth = 1;  ///< operations under way for each client
  qcow::ImageOptions options;
  Faults faults;

  static Shape of_seed(uint64_t seed);
  std::string text() const;
};

std::vector<Op> script_of_seed(uint64_t seed, const Shape& shape, size_t count);

}  // namespace crash
