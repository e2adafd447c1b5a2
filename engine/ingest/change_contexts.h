// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "nbd/meta_context.h"
#include "qcow/chain/chain.h"

namespace engine {

/// A published point below an image.
struct Ancestor {
  std::string image_id, job_id;
};

/// What changed since each of the layers from `first` on, as metadata contexts that name the jobs
/// they come from (M3). A layer that is not among `ancestors` has no name, and so no context. Pure.
nbd::MetaContexts change_contexts_of(const qcow::Chain& chain, size_t first,
                                     const std::vector<Ancestor>& ancestors);

}  // namespace engine
