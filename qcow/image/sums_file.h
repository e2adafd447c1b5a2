// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "qcow/image/image_parts.h"
#include "qcow/image/sum_log.h"

namespace qcow {

/// Writes the manifest of an image at rest: what its tables say, and of each stored cluster the
/// checksum that `log` has. A cluster whose checksum is not known is read back. The file and its
/// name are durable on return. Throws std::system_error, EEXIST when the name is taken, and
/// FormatError. Spec: docs/manifest.md.
io::Task<void> write_sums(ImageParts& parts, SumLog& log, std::string path);

}  // namespace qcow
