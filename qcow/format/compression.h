// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "qcow/format/header.h"

namespace qcow {

/// Fills all of `cluster` from a compressed cluster's stream (CP1). `stream` runs to the end of
/// its last sector, so other bytes may follow the stream's own end. False when the stream is
/// damaged or yields another number of bytes.
///
/// deflate: raw, any window up to 15 bits (qemu itself writes 12). Pure.
[[nodiscard]] bool decompress(CompressionType type, std::span<const std::byte> stream,
                              std::span<std::byte> cluster);

}  // namespace qcow
