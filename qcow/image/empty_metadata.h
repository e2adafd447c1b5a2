// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "io/file.h"
#include "qcow/format/geometry.h"

namespace qcow {

/// Gives the file system back the blocks of metadata `clusters` that hold zeroes only, and are
/// thereby read as before: whether and when that reaches the disk changes nothing. A thin disk has
/// little more than its metadata, and a table's cluster is mostly empty there. Memory is bounded
/// whatever the count. Nothing may be writing to the clusters. Returns early where the file system
/// has no holes.
io::Task<void> punch_empty_metadata(io::File& file, Geometry geometry,
                                    std::vector<HostOffset> clusters);

/// Whether that is worth the reading: the clusters are more than a small part of the file.
bool is_mostly_metadata(uint64_t metadata_bytes, uint64_t file_bytes);

}  // namespace qcow
