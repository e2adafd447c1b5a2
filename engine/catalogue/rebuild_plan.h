// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/values/types.h"

namespace engine {

/// What the files of a repository say, for a catalogue that knows less (rebuild.h).
struct RebuildPlan {
  std::vector<Vm> vms;
  std::vector<Job> jobs;                  ///< completed ones, parents first
  std::vector<ImageVerification> proofs;  ///< the last ones of images of these jobs
  std::vector<std::string> problems;      ///< one sentence per file or job that was left out
};

}  // namespace engine
