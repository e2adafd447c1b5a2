// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/types.h"

namespace engine {

/// A job's progress over time, at most kSamplesMax points of it.
struct SampleHistory {
  std::vector<ProgressSample> samples;  ///< oldest first
  bool halved = false;                  ///< some were dropped to keep the bound
  // Over every sample ever recorded.
  uint64_t recorded = 0, peak_bps = 0, average_bps = 0, minimum_bps = 0;
};

/// Telemetry samples. When a job has kSamplesMax of them every second one is dropped, and from then
/// on new ones are kept at the wider distance, so that the density stays even over the job.
/// On the catalogue's thread.
class SampleCatalogue {
 public:
  static constexpr uint64_t kSamplesMax = 720;

  explicit SampleCatalogue(Db& db) : db_(db) {}

  void add(const std::string& job_id, const ProgressSample& sample);
  /// The newest `limit` of them; 0 for all.
  SampleHistory history(std::string_view job_id, uint64_t limit = 0);

 private:
  Db& db_;
};

}  // namespace engine
