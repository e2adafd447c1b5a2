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

std::shared_ptr<qcow::DiskShare> Core::disk_share(const std::string& directory) {
  std::shared_ptr<qcow::DiskShare>& share = disks_[directory];
  if (!share) share = std::make_shared<qcow::DiskShare>();
  return share;
}

}  // namespace engine
