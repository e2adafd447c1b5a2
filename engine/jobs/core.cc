#include "engine/jobs/core.h"

#include <algorithm>

namespace engine {

const io::Runtime& Core::least_loaded() const {
  std::vector<size_t> load(parts.data.size());
  for (const auto& job : jobs.all()) {
    for (const auto& ingest : job->ingests) {
      if (!ingest) continue;
      for (size_t at = 0; at < parts.data.size(); ++at) {
        load[at] += &parts.data[at].executor == &ingest->data().executor;
      }
    }
  }
  return parts.data[std::min_element(load.begin(), load.end()) - load.begin()];
}

}  // namespace engine
