// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/format/header.h"

/// How a sealed image becomes a restore point in its own header (PU6).
namespace qcow {

struct Publication {
  Sha256 manifest_hash{};
  uint64_t time = 0;  ///< seconds since 1970
};

/// The seal and the finished record in one write, then fsync; returns the header as it is now.
///
/// May be repeated, also over a header that a crash has torn between its sectors: no part of it
/// changes its length, so every mix of old and new sectors decodes, and the whole is written again.
io::Task<Header> publish_header(io::File& file, std::string image_name, Header header,
                                Publication publication);

/// The same for an image that was sealed by an earlier process. Opens it, takes the writer's lock
/// and verifies that it is the image `image_uuid` ("": of an earlier version, which kept none).
/// Throws FormatError when it is another one, and while another process uses it.
io::Task<void> publish_sealed(io::Runtime runtime, std::string path, std::string image_uuid,
                              Publication publication);

}  // namespace qcow
