// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/runtime.h"
#include "io/task.h"

namespace qcow {

struct CheckOptions {
  /// Host clusters looked at in one pass over the tables; a pass takes a byte of memory for each.
  /// With 64 KiB clusters, 2 TiB of file.
  uint64_t clusters_per_pass = 32 << 20;
  uint64_t findings_max = 100;  ///< texts kept; all are counted
};

struct CheckResult {
  /// Wrong refcounts that endanger data, wrong flags, reserved bits, entries past the end: what
  /// `qemu-img check` calls errors.
  uint64_t corruptions = 0;
  /// Clusters with a refcount that is too high: wasted space, no danger.
  uint64_t leaks = 0;
  /// Host clusters of the active layer with two owners. QCOW2 allows that with a refcount of two;
  /// varve never writes it (LT9, FB2).
  uint64_t shared_clusters = 0;
  std::vector<std::string> findings;
  uint64_t findings_left_out = 0;

  uint64_t file_bytes = 0;
  uint64_t guest_clusters = 0;
  uint64_t data_clusters = 0;        ///< guest clusters stored as they are
  uint64_t compressed_clusters = 0;  ///< guest clusters stored compressed
  uint64_t zero_clusters = 0;        ///< guest clusters with the zero flag
  uint64_t used_end = 0;             ///< bytes of the file up to its last cluster in use

  /// As `qemu-img check` means it.
  bool clean() const { return corruptions == 0 && leaks == 0; }
};

/// Compares an image's refcounts and flags with what its tables really refer to.
///
/// Shares only codecs with the code that writes images, so that it can be their judge. It agrees
/// with `qemu-img check` and counts as that does. Memory is bounded whatever the file's size: a
/// large file takes several passes over its tables, and so do clusters with 15 references and more.
/// It ends on any file: what a damaged count claims is followed as far as the file has bytes for
/// it. Reads only; the file is at rest meanwhile. Throws FormatError when the header is refused;
/// the corrupt bit alone is no reason.
io::Task<CheckResult> check(io::File& file, std::string image_name, CheckOptions options);

/// The same by path, holding a reader's locks.
io::Task<CheckResult> check(io::Runtime runtime, std::string path, CheckOptions options);

}  // namespace qcow
