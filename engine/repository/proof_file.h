// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "engine/values/types.h"

/// `<image>.qcow2.verified`: the last proof of a published image, for a rebuild. What a point is
/// stands in its sidecar, which nothing changes; this changes with each proof, and is worth no
/// failure. Spec: docs/verify.md, "What is remembered". Pure.
namespace engine {

/// JSON of one line. It ends in the SHA-256 of what stands before it, so that one that is not whole
/// is not believed.
std::string encode_proof_file(const ImageVerification& proof);

/// Its `job_id`, `vm_name` and `disk_index` are not in the text. Throws FileTextError for a text
/// that is damaged, of another kind, or of another image than `image_id`.
ImageVerification decode_proof_file(std::string_view text, std::string_view image_id);

}  // namespace engine
