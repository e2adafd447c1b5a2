// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/jobs/delete_job.h"
#include "engine/values/layout.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"

/// The newest backup is deleted: played last, judged with the points.
namespace crash {

io::Task<void> EngineRun::delete_newest(engine::Core& core) {
  deletion_.job_id = core.catalogue->points.list("1").back().job_id;
  deletion_.begun = world_->disk.moment();
  co_await engine::delete_job(core, deletion_.job_id, false);
  deletion_.answered = world_->disk.moment();
}

/// Its rows and its files are there together, or gone together: each file of an image belongs to a
/// point or to what is kept.
std::optional<std::string> EngineRun::judge_deletion(World& world, engine::Core& core,
                                                     uint64_t moment) {
  const bool is_known = core.catalogue->jobs.find(deletion_.job_id).has_value();
  if (deletion_.begun <= moment && moment < deletion_.answered) {
    ++campaign_.judged[is_known ? "deletion not begun" : "deletion finished"];
  }
  if (moment >= deletion_.answered && is_known) return "BAD: a deleted backup is back";
  std::set<std::string> owned;
  for (const engine::KnownImage& image : core.catalogue->jobs.known_images("1")) {
    owned.insert(image.image_path);
  }
  static constexpr std::array kEndings = {engine::kImageEnding, engine::kSidecarEnding,
                                          engine::kSumsEnding, engine::kProofEnding};
  for (const auto& [path, node] : world.disk.names()) {
    const bool is_of_image = std::ranges::any_of(
        kEndings, [&path = path](std::string_view ending) { return path.ends_with(ending); });
    if (!is_of_image || node.is_link()) continue;
    const std::string image =
        path.substr(0, path.rfind(engine::kImageEnding) + engine::kImageEnding.size());
    if (!owned.contains(image)) return fmt::format("BAD: {} is left over, of no row", path);
  }
  return std::nullopt;
}

}  // namespace crash
