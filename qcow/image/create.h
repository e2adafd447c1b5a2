// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/format/header.h"

namespace qcow {

/// What a new image stands on.
struct NewParent {
  std::string name;        ///< relative: the parent's bare file name (BC1)
  Uuid uuid{};             ///< its record's image UUID; zeroes when it has no record
  Sha256 manifest_hash{};  ///< its record's manifest hash; zeroes when it has none
};

struct CreateOptions {
  uint64_t virtual_size = 0;  ///< bytes, exact
  uint32_t cluster_bits = kClusterBitsDefault;
  uint32_t refcount_order = kRefcountOrderDefault;
  Uuid image_uuid{};
  std::optional<NewParent> parent;  ///< none: a full image
};

/// The largest disk that an image of those parameters can hold (LM1), in whole sectors of 512.
uint64_t virtual_size_max(uint32_t cluster_bits = kClusterBitsDefault,
                          uint32_t refcount_order = kRefcountOrderDefault);

/// Where the first clusters of a new image lie (LT1, LT2): header, refcount table, refcount
/// blocks, L1, one behind the other. The refcount table is as large as it will ever be (LT3).
struct InitialLayout {
  HostOffset refcount_table;
  uint64_t refcount_table_clusters = 0;
  HostOffset refcount_blocks;
  uint64_t refcount_block_count = 0;  ///< 1 but for tiny clusters
  HostOffset l1_table;
  uint64_t clusters = 0;    ///< all of them in use, refcount 1
  uint64_t file_bytes = 0;  ///< ends with the last L1 entry, as qemu-img leaves it

  static InitialLayout of(const Geometry& geometry);
};

/// The header that create() writes. Throws FormatError when the size is refused (LM1) or the
/// parts do not fit cluster 0.
Header new_header(const CreateOptions& options, std::string_view image_name);

/// Makes an empty image under `path`, a name that must be free, and makes it and its name durable
/// (DU1). On failure no file stays.
io::Task<void> create(io::Runtime runtime, std::string path, CreateOptions options);

}  // namespace qcow
