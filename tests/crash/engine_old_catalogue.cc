// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "engine/repository/rebuild_files.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"

/// An older copy of the catalogue is put back beside newer files: a backup on it, and a rebuild.
namespace crash {

namespace {

/// The images that are published, with what describes them.
std::vector<std::string> published_files(const State& state) {
  std::vector<std::string> paths;
  for (const auto& [path, node] : state.names) {
    if (!path.ends_with(engine::kImageEnding) || node.is_link()) continue;
    for (const std::string& file :
         {path, engine::sidecar_path(path), engine::sums_path(path), engine::proof_path(path)}) {
      if (state.names.contains(file)) paths.push_back(file);
    }
  }
  return paths;
}

/// One that is gone or changed; a proof may be a newer one.
std::optional<std::string> harmed_file(const State& state, World& world) {
  for (const std::string& path : published_files(state)) {
    const Node* const now = world.disk.find(path);
    if (now == nullptr) return path;
    if (path.ends_with(engine::kProofEnding)) continue;
    if (world.disk.content(now->file) != *state.files.at(state.names.at(path).file)) return path;
  }
  return std::nullopt;
}

/// Jobs all of whose images are published, with their sidecars.
size_t whole_jobs(const State& state) {
  std::map<std::string, size_t> missing;
  for (const auto& [path, node] : state.names) {
    const std::string sidecar = engine::sidecar_path(path);
    if (!path.ends_with(engine::kImageEnding) || node.is_link()) continue;
    if (!state.names.contains(sidecar)) continue;
    const Bytes& bytes = *state.files.at(state.names.at(sidecar).file);
    const engine::Sidecar found =
        engine::decode_sidecar({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    missing.try_emplace(found.job.id, found.job_images.size()).first->second -= 1;
  }
  return static_cast<size_t>(
      std::ranges::count_if(missing, [](const auto& job) { return job.second == 0; }));
}

}  // namespace

/// Of any moment since the VM was registered.
std::optional<std::string> EngineRun::judge_old_catalogue(const State& state, uint64_t moment,
                                                          Rng& rng) {
  if (state.catalogue < commits_of_register_) return std::nullopt;
  const size_t older = rng.between(commits_of_register_, state.catalogue);
  restore_database(catalogue_path_, commits_[older - 1]);
  // What it says is to be deleted is deleted, by it too.
  if (!engine::Catalogue(catalogue_path_).jobs.deleting_jobs().empty()) return std::nullopt;
  World world(state);
  const bool is_rebuilt = rng.one_in(2);
  ++campaign_.judged[is_rebuilt ? "older catalogue rebuilt" : "older catalogue used"];
  const bool came_up = !is_rebuilt || rng.one_in(2);
  if (came_up) use_old_catalogue(world, moment, !is_rebuilt);
  std::optional<std::string> wrong;
  if (const auto harmed = harmed_file(state, world)) {
    wrong = fmt::format("LOST: {} was published and is gone or changed", *harmed);
  } else if (is_rebuilt) {
    wrong = judge_rebuild_on_old(state, world);
  }
  if (!wrong) return std::nullopt;
  return fmt::format("{}, by the catalogue of commit {}{}", *wrong, older,
                     is_rebuilt ? (came_up ? ", used and rebuilt" : ", rebuilt") : "");
}

/// The clock may be set back too: names come again.
void EngineRun::use_old_catalogue(World& world, uint64_t moment, bool back_up_too) {
  EngineProcess process(world, ring_.ring(), catalogue_path_);
  const std::vector<Bytes> content = content_;
  const std::vector<Job> jobs = jobs_;
  Rng rng(seed_of(seed_, moment));
  try {
    world.scheduler.run(process.come_up());
    if (back_up_too) world.scheduler.run(back_up(process.core(), world, rng, 0));
  } catch (const std::exception&) {
    // It may be refused.
  }
  content_ = content;
  jobs_ = jobs;
  process.end();
}

/// Every job that is whole in the files is known afterwards, and reads as it did.
std::optional<std::string> EngineRun::judge_rebuild_on_old(const State& state, World& world) {
  const engine::RebuildRequest request{.catalogue_path = catalogue_path_,
                                       .directory = EngineProcess::kRepository,
                                       .repository_id = "1",
                                       .pid = 1};
  try {
    world.scheduler.run(engine::rebuild_catalogue(world.runtime(), request));
  } catch (const std::exception& failure) {
    return fmt::format("LOST: a rebuild ends: {}", failure.what());
  }
  engine::Catalogue rebuilt(catalogue_path_);
  const std::vector<engine::Point> points = rebuilt.points.list("1");
  const size_t wanted = whole_jobs(state) * kDisks;
  if (points.size() < wanted) {
    return fmt::format("LOST: a rebuild knows {} of {} points", points.size(), wanted);
  }
  for (const engine::Point& point : points) {
    if (world.disk.find(point.image_path) == nullptr) continue;  // deleted since
    const Bytes& content = history_[point.disk_index].at(point.place.position);
    if (auto wrong = judge_point(world, point, content)) return wrong;
  }
  return std::nullopt;
}

}  // namespace crash
