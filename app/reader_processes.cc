// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "app/read_image.h"
#include "io/child_process.h"

namespace app {
namespace {

class ReadImageProcess final : public engine::ReaderProcess {
 public:
  ReadImageProcess(io::Ring& ring, const std::string& image_path, uint64_t cluster_bytes)
      : child_(ring, "/proc/self/exe",
               {"varve", "read-image", fmt::format("--parent={}", ::getpid()),
                fmt::format("--cluster-bytes={}", cluster_bytes), "--", image_path}) {}

  io::Stream& stream() override { return child_.stream(); }
  void kill() noexcept override { child_.kill(); }
  io::Task<std::string> ended() override { return child_.ended(); }

 private:
  io::ChildProcess child_;
};

class ReadImageProcesses final : public engine::ReaderProcesses {
 public:
  explicit ReadImageProcesses(std::vector<io::Ring*> rings) : rings_(std::move(rings)) {}

  std::unique_ptr<engine::ReaderProcess> start(io::Executor& executor,
                                               const std::string& image_path,
                                               uint64_t cluster_bytes) override {
    const auto ring = std::ranges::find_if(rings_, [&](io::Ring* r) { return r == &executor; });
    if (ring == rings_.end()) throw std::logic_error("a second reader on a thread without a ring");
    return std::make_unique<ReadImageProcess>(**ring, image_path, cluster_bytes);
  }

 private:
  const std::vector<io::Ring*> rings_;
};

}  // namespace

std::unique_ptr<engine::ReaderProcesses> make_reader_processes(std::vector<io::Ring*> rings) {
  if (!has_libqcow()) return nullptr;
  return std::make_unique<ReadImageProcesses>(std::move(rings));
}

}  // namespace app
