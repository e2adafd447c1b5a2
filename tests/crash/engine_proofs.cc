// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "engine/repository/proof_file.h"
#include "engine/repository/rebuild_files.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/verifications.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"
#include "tests/crash/manifest.h"

/// Verifications of the points: played after each backup, judged with them.
namespace crash {

namespace {

std::string text_at(World& world, const std::string& path) {
  const Bytes& bytes = world.disk.content(world.disk.find(path)->file);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

/// Nothing when it is not believed.
std::optional<engine::ImageVerification> believed(std::string_view text, const std::string& image) {
  try {
    return engine::decode_proof_file(text, image);
  } catch (const engine::FileTextError&) {
    return std::nullopt;
  }
}

/// What the files say of a point. Sizes on the disk and proofs are judged elsewhere.
std::string described(const engine::Point& point) {
  return fmt::format(
      "{} {} of {} ({} {}) in {}, disk {} ({}), place {}.{}, {}, {} bytes, '{}', on '{}' of '{}', "
      "{} bytes, {} stored, from {} to {}, {} warnings",
      point.image_id, point.image_path, point.job_id, point.context_id, point.vm_name,
      point.repository_id, point.disk_index, point.disk_key, point.place.generation,
      point.place.position, to_text(point.type), point.capacity_bytes, point.change_id,
      point.parent_image_id, point.parent_job_id, point.file_bytes, point.bytes_stored,
      engine::unix_seconds(point.created_at), engine::unix_seconds(point.completed_at),
      point.warnings.size());
}

}  // namespace

/// Everything that there is, by varve's own reader.
io::Task<engine::Verification> EngineRun::verify(engine::Core& core, World& world) {
  engine::NewVerification request;
  request.by_libqcow = false;
  const engine::Verification begun = co_await engine::begin_verification(core, request);
  while (engine::running_verification(core.verifications)) {
    co_await io::sleep(world.scheduler, world.scheduler, std::chrono::milliseconds(50));
  }
  co_return engine::find_verification(core.verifications, begun.id);
}

io::Task<void> EngineRun::verify_and_note(engine::Core& core) {
  // Each proof has a second of its own, so that their files differ.
  co_await io::sleep(world_->scheduler, world_->scheduler, std::chrono::seconds(1));
  const size_t points = core.catalogue->points.list("1").size();
  const engine::Verification task = co_await verify(core, *world_);
  const bool is_sound =
      task.state == engine::VerificationState::completed && task.images.size() == points &&
      std::ranges::all_of(task.images, [](const engine::ImageVerification& image) {
        return image.result == engine::VerificationResult::sound;
      });
  if (!is_sound) throw std::logic_error("what was just published is not found sound");
  for (const engine::Point& point : core.catalogue->points.list("1")) {
    const std::string path = engine::proof_path(point.image_path);
    proofs_[path].push_back({world_->disk.moment(), point.image_id, text_at(*world_, path)});
  }
}

/// The file beside each image is as some verification left it, and the last one that has ended by
/// then or a later one; the catalogue knows no less.
std::optional<std::string> EngineRun::judge_proofs(World& world, engine::Core& core,
                                                   uint64_t moment) {
  for (const engine::Point& point : core.catalogue->points.list("1")) {
    const std::string path = engine::proof_path(point.image_path);
    const std::vector<Proof>& proofs = proofs_[path];
    const auto promised =
        std::ranges::count_if(proofs, [&](const Proof& proof) { return proof.moment <= moment; });
    if (world.disk.find(path) == nullptr) {
      if (promised > 0) return fmt::format("LOST: {} is gone", path);
      continue;
    }
    const std::string text = text_at(world, path);
    const auto same =
        std::ranges::find_if(proofs, [&](const Proof& proof) { return proof.text == text; });
    if (same == proofs.end()) return fmt::format("TORN: {} is none that was written", path);
    if (same - proofs.begin() + 1 < promised) {
      return fmt::format("LOST: {} is older than the last proof", path);
    }
    const auto known = core.catalogue->verifications.find(point.image_id);
    const auto proof = believed(text, point.image_id);
    if (!proof) return fmt::format("LOST: {} is not believed", path);
    if (!known || known->verified_at < proof->verified_at) {
      return fmt::format("BAD: {} says more than the catalogue", path);
    }
  }
  return std::nullopt;
}

/// One that other storage has put together from two, or cut off, is not believed.
std::optional<std::string> EngineRun::judge_torn_proofs() const {
  for (const auto& [path, proofs] : proofs_) {
    const std::string &older = proofs.front().text, &newer = proofs.back().text;
    for (size_t at = 1; at < newer.size(); at += 7) {
      for (const std::string& torn : {newer.substr(0, at), newer.substr(0, at) + older.substr(at),
                                      newer.substr(0, at) + std::string(newer.size() - at, '\0')}) {
        if (torn == older || torn == newer || !believed(torn, proofs.back().image_id)) continue;
        return fmt::format("BAD: {}, torn after {} bytes, is believed", path, at);
      }
    }
  }
  return std::nullopt;
}

/// After the restart: all points are sound; and one that is damaged then is found, with those that
/// read it. The damage is mended, the proof that tells of it stays.
std::optional<std::string> EngineRun::judge_verification(World& world, engine::Core& core,
                                                         Rng& rng) {
  ++campaign_.judged["verified"];
  const engine::Verification sound = world.scheduler.run(verify(core, world));
  if (sound.state != engine::VerificationState::completed || !sound.damaged_backups.empty()) {
    return fmt::format("BAD: a verification after the restart: {}", sound.error);
  }
  const std::vector<engine::Point> all = core.catalogue->points.list("1");
  std::vector<engine::Point> points = all;
  std::erase_if(points, [&](const engine::Point& point) {
    return stored_clusters(world, point.image_path).empty();
  });
  if (points.empty()) return std::nullopt;
  const engine::Point& victim = points[rng.below(points.size())];
  const std::vector<StoredCluster> stored = stored_clusters(world, victim.image_path);
  const StoredCluster& cluster = stored[rng.below(stored.size())];
  const uint64_t at = cluster.host.bytes + rng.below(64 << 10);
  std::vector<Bytes> before;
  for (const engine::Point& point : all) before.push_back(read_disk(world, point.image_path));
  spoil(world, victim.image_path, at);
  std::vector<std::string> wanted;  // whoever reads other bytes now
  for (size_t i = 0; i < all.size(); ++i) {
    if (read_disk(world, all[i].image_path) != before[i]) wanted.push_back(all[i].job_id);
  }
  const engine::Verification damaged = world.scheduler.run(verify(core, world));
  spoil(world, victim.image_path, at);
  for (const engine::ImageVerification& image : damaged.images) {
    const bool is_damaged = image.result == engine::VerificationResult::damaged;
    if (is_damaged != (image.image_id == victim.image_id)) {
      return fmt::format("BAD: damage to {} is not found, or found in {}", victim.image_path,
                         image.image_id);
    }
  }
  std::ranges::sort(wanted);
  if (damaged.damaged_backups != wanted) return "BAD: other backups are said to be damaged";
  return std::nullopt;
}

/// The catalogue is lost; the files say the same of points and proofs. No varve runs.
std::optional<std::string> EngineRun::judge_rebuild(World& world,
                                                    const std::vector<engine::Point>& points) {
  ++campaign_.judged["rebuilt"];
  const std::string path = catalogue_path_ + ".rebuilt";
  restore_database(path, {});
  const engine::RebuildRequest request{.catalogue_path = path,
                                       .directory = EngineProcess::kRepository,
                                       .repository_id = "1",
                                       .pid = 1};
  const engine::RebuildReport report =
      world.scheduler.run(engine::rebuild_catalogue(world.runtime(), request));
  std::optional<std::string> wrong;
  if (!report.left_out.empty()) {
    wrong = fmt::format("LOST: a rebuild leaves out {}", report.left_out.front());
  }
  engine::Catalogue rebuilt(path);
  if (report.images != points.size()) wrong = "LOST: a rebuild does not find every point";
  for (const engine::Point& point : points) {
    const auto again = rebuilt.points.find(point.image_id);
    if (!again || described(*again) != described(point)) {
      wrong = fmt::format("LOST: a rebuild knows {} as {}", described(point),
                          again ? described(*again) : "nothing");
    }
    const std::string file = engine::proof_path(point.image_path);
    const auto found = rebuilt.verifications.find(point.image_id);
    const bool is_there = world.disk.find(file) != nullptr;
    if (found.has_value() != is_there) wrong = "LOST: a rebuild does not know a proof";
    if (!found || !is_there) continue;
    if (engine::encode_proof_file(*found) != text_at(world, file)) {
      wrong = fmt::format("LOST: a rebuild takes another proof from {}", file);
    }
  }
  return wrong;
}

}  // namespace crash
