// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine/values/types.h"

/// The sidecar of a published image, "<image>.qcow2.json".
///
/// Invariant: equal values give equal bytes, because publish is repeated after a crash and the
/// image's header holds the SHA-256 of these bytes (VR5, PU5). Written once, never changed. Spec:
/// docs/jobs.md, "Files of a repository". Pure.
namespace engine {

/// A file of a repository does not say what varve writes there.
class FileTextError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// 2: sums_sha256 and parent_root. 3: job_type, what was received and stored. Older ones are read.
inline constexpr uint32_t kSidecarFormat = 3;

/// What it says; other members of job and disk are not in the file.
struct Sidecar {
  uint32_t format = kSidecarFormat;
  Job job;  ///< without its disks, and of its warnings those about this disk
  JobDisk disk;
  std::string backing_file;             ///< "" for a full
  std::vector<std::string> job_images;  ///< image ids of the whole job, ascending index

  bool operator==(const Sidecar&) const = default;
};

/// What the decision fixes for one sealed disk of a job; it has its place in the chain.
Sidecar sidecar_of(const Job& job, const JobDisk& disk, Time completed_at);

std::string encode_sidecar(const Sidecar& sidecar);
/// Throws FileTextError; also for a sidecar of the old hub's, which has no `varve` member.
Sidecar decode_sidecar(std::string_view text);

}  // namespace engine
