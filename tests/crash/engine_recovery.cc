// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "engine/promotions.h"
#include "engine/restores.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"

/// Restores of the first point: played after the backups, judged with them.
namespace crash {

namespace {

constexpr const char* kAway = "/away";
constexpr const char* kCopy = "/away/copy";

std::string copied_disk(size_t disk) { return fmt::format("{}/disk-{}.raw", kCopy, disk); }

}  // namespace

io::Task<void> EngineRun::recover(engine::Core& core) {
  Rng rng(seed_of(seed_, 10));
  recovery_.content.clear();
  for (const auto& history : history_) recovery_.content.push_back(history.front());
  co_await world_->files.make_directories(kAway);
  engine::NewRestore request;
  request.backup_id = core.catalogue->points.list("1").front().job_id;
  request.mode = engine::RestoreMode::writable;
  const engine::RestoreView made = co_await engine::create_restore(core, request);
  const std::string& id = made.restore.id;
  co_await write_to_overlay(core, rng, made.restore.disks[0].export_name);
  recovery_.flushed = world_->disk.moment();
  engine::NewPromotion promotion{.path = kCopy, .format = engine::DiskFormat::raw};
  co_await engine::promote_restore(core, id, promotion);
  while (core.promotions.contains(id)) {
    co_await io::sleep(world_->scheduler, world_->scheduler, std::chrono::milliseconds(50));
  }
  const auto ended = core.catalogue->restores.find(id);
  if (ended->promotion->state != engine::PromotionState::completed) {
    throw std::logic_error("the promotion has not completed: " + ended->promotion->error);
  }
  recovery_.promoted = world_->disk.moment();
  co_await engine::drop_restore(core, id);
  recovery_.dropped = world_->disk.moment();
}

io::Task<void> EngineRun::write_to_overlay(engine::Core& core, Rng& rng, const std::string& name) {
  const auto exported = co_await core.restores.open(name);
  auto connected = exported->connect();
  const nbd::ConnectionPlace place = std::move(std::get<nbd::ConnectionPlace>(connected));
  for (int i = 0; i < 4; ++i) {
    Op op;
    op.offset = sector_down(rng.below(kDiskBytes));
    op.length = std::min(kSector * rng.between(1, 200), kDiskBytes - op.offset);
    op.tag = rng.next();
    const Bytes bytes = op.bytes();
    io::Buffer buffer = co_await world_->buffers.acquire(bytes.size(), op.offset % 4096);
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    std::copy(bytes.begin(), bytes.end(),
              recovery_.content[0].begin() + static_cast<ptrdiff_t>(op.offset));
    co_await exported->device().write(op.offset, std::move(buffer));
  }
  co_await exported->device().flush();
}

std::optional<std::string> EngineRun::judge_recovery(World& world, engine::Core& core,
                                                     uint64_t moment) {
  if (auto wrong = judge_overlays(world, core, moment)) return wrong;
  return judge_promoted(world, core, moment);
}

/// Each overlay belongs to a restore, and each restore has its overlays.
std::optional<std::string> EngineRun::judge_overlays(World& world, engine::Core& core,
                                                     uint64_t moment) {
  const std::vector<engine::Restore> restores = core.catalogue->restores.list();
  if (moment >= recovery_.dropped && !restores.empty()) return "BAD: a dropped restore is back";
  if (moment >= recovery_.flushed && moment < recovery_.promoted && restores.empty()) {
    return "LOST: a restore is gone";
  }
  size_t overlays = 0, known = 0;
  for (const auto& [path, node] : world.disk.names())
    overlays += path.ends_with(".overlay") ? 1 : 0;
  for (const engine::Restore& restore : restores) {
    if (restore.state != engine::RestoreState::ready) return "BAD: a restore is not cleaned up";
    for (const engine::RestoreDisk& disk : restore.disks) {
      if (world.disk.find(disk.path) == nullptr) {
        return fmt::format("LOST: {} is gone", disk.path);
      }
      ++known;
      const Bytes content = read_disk(world, disk.path);
      const bool is_known = moment >= recovery_.flushed || disk.disk_index != 0;
      if (is_known && content != recovery_.content[disk.disk_index]) {
        return fmt::format("LOST: disk {} of the restore has other content", disk.disk_index);
      }
    }
  }
  if (overlays != known) return "BAD: an overlay is left over";
  return std::nullopt;
}

/// Both disks, whole, or none; and the catalogue says which.
std::optional<std::string> EngineRun::judge_promoted(World& world, engine::Core& core,
                                                     uint64_t moment) {
  size_t there = 0;
  for (size_t disk = 0; disk < kDisks; ++disk) {
    const Node* const node = world.disk.find(copied_disk(disk));
    if (node == nullptr) continue;
    ++there;
    if (world.disk.content(node->file) != recovery_.content[disk]) {
      return fmt::format("LOST: promoted disk {} has other content", disk);
    }
  }
  if (there != 0 && there != kDisks) return "BAD: one disk is promoted, another is not";
  if (moment >= recovery_.promoted && there == 0) return "LOST: the promoted disks are gone";
  for (const engine::Restore& restore : core.catalogue->restores.list()) {
    if (!restore.promotion) continue;
    const bool is_said = restore.promotion->state == engine::PromotionState::completed;
    if (restore.promotion->state == engine::PromotionState::copying) {
      return "BAD: a promotion is not cleaned up";
    }
    if (is_said != (there == kDisks)) return "BAD: the catalogue says otherwise of the promotion";
  }
  return std::nullopt;
}

}  // namespace crash
