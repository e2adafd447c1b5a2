// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/wanted.h"

/// What verifications have found damaged, and who reads it. Control thread. Spec: docs/verify.md,
/// "Healing".
namespace engine {

/// Of the newest points of a VM in a repository.
io::Task<WantedView> wanted(Core& core, WantedQuery query);

/// The backups that read what was found damaged in this image, but for those whose own images, or
/// ones between, have stored all of it anew. Newest first; the last is the image's own.
io::Task<std::vector<std::string>> readers_of_damage(Core& core, Point point,
                                                     ImageVerification found);

/// What is remembered of it: of each reader's ranges 128, those first that the newest point reads.
/// Where these are not all that it reads, `problem` says so.
io::Task<ImageVerification> with_first_ranges(Core& core, Point point, ImageVerification found);

}  // namespace engine
