// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/task.h"
#include "qcow/image/image_parts.h"

namespace qcow {

/// Finds where the file may be continued, while the image opens for writing: no cluster that a
/// table names, and none with a refcount, is ever handed out (DU9). Reads every table, gives back
/// what a crash has leaked in an image of varve, and clears the autoclear bits. Needs `parts.map`
/// with its L1, and `parts.allocator`. Throws FormatError for refcounts that contradict the tables,
/// before anything is written.
io::Task<void> recover(ImageParts& parts);

}  // namespace qcow
