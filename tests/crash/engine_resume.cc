// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "engine/jobs/complete_job.h"
#include "engine/jobs/end_job.h"
#include "engine/jobs/start_job.h"
#include "engine/values/layout.h"
#include "tests/crash/engine_process.h"
#include "tests/crash/engine_run.h"

/// A backup that is interrupted and resumed: played in the place of the last one of half of the
/// runs, and gone on with in some restarts after a cut.
namespace crash {

namespace {
constexpr size_t kExtentsAtOnce = 64;
}  // namespace

/// What a snapshot would hold: it does not change, however often it is sent.
void EngineRun::take_snapshot(Rng& rng) {
  for (size_t disk = 0; disk < kDisks; ++disk) {
    snapshot_[disk].clear();
    for (int i = 0; i < 8; ++i) {
      Op op;
      op.offset = sector_down(rng.below(kDiskBytes));
      op.length = std::min(kSector * rng.between(1, 200), kDiskBytes - op.offset);
      op.tag = rng.next();
      const Bytes bytes = rng.one_in(4) ? Bytes(op.length) : op.bytes();
      // Some of what is sent has not changed.
      if (!rng.one_in(3)) {
        std::ranges::copy(bytes, content_[disk].begin() + static_cast<ptrdiff_t>(op.offset));
      }
      snapshot_[disk].push_back({op.offset, op.length});
    }
  }
}

io::Task<void> EngineRun::send(World& world, io::BlockDevice& device, size_t disk, uint64_t offset,
                               uint64_t length) {
  const Bytes& from = content_[disk];
  const auto begin = from.begin() + static_cast<ptrdiff_t>(offset);
  const bool zero = std::all_of(begin, begin + static_cast<ptrdiff_t>(length),
                                [](std::byte byte) { return byte == std::byte{0}; });
  if (zero) {
    co_await device.write_zeroes(offset, length, io::ZeroMode::may_unmap);
    co_return;
  }
  io::Buffer buffer = co_await world.buffers.acquire(length, offset % 4096);
  std::copy_n(begin, length, buffer.data());
  co_await device.write(offset, std::move(buffer));
}

/// Of the snapshot, what the export does not give allocation depth 1; up to `pieces` of it.
io::Task<void> EngineRun::send_missing(engine::Core& core, World& world,
                                       const engine::JobDisk& disk, size_t pieces) {
  const auto exported = core.parts.exports.find(disk.export_name);
  auto connected = exported->connect();
  const nbd::ConnectionPlace place = std::move(std::get<nbd::ConnectionPlace>(connected));
  io::BlockDevice& device = exported->device();
  for (const auto& range : snapshot_[disk.index]) {
    for (uint64_t at = range.offset; at < range.end() && pieces > 0;) {
      const std::vector<io::Extent> extents =
          co_await device.extents(at, range.end() - at, kExtentsAtOnce);
      for (const io::Extent& extent : extents) {
        if (extent.depth != 1 && pieces > 0) {
          co_await send(world, device, disk.index, at, extent.length);
          // As a client does whose answer was lost.
          if (at / kSector % 3 == 0) co_await send(world, device, disk.index, at, extent.length);
          --pieces;
        }
        at += extent.length;
      }
    }
  }
}

io::Task<void> EngineRun::back_up_in_parts(engine::Core& core, Rng& rng) {
  World& world = *world_;
  jobs_.push_back({world.disk.moment()});
  take_snapshot(rng);
  engine::StartBackup request;
  request.vm_name = "vm";
  request.backup_type = engine::BackupType::incremental;
  request.repository_id = "1";
  request.keep_partial = true;
  while (true) {
    const engine::Job job = co_await engine::start_job(core, request);
    const bool is_last = rng.one_in(2);
    for (const engine::JobDisk& disk : job.disks) {
      co_await send_missing(core, world, disk, is_last ? SIZE_MAX : rng.below(6));
      if (is_last || rng.one_in(2)) continue;
      co_await io::sleep(world.scheduler, world.scheduler, std::chrono::seconds(6));  // a save
      co_await send_missing(core, world, disk, rng.below(3));
    }
    if (is_last) {
      co_await complete_all(core, job, jobs_.size());
      co_return;
    }
    const auto running = core.jobs.find(job.id);
    co_await engine::fail_job(core, running, engine::FailureCode::client, "the client has gone");
    const auto ended = core.catalogue->jobs.find(job.id);
    request = {};
    request.resume = job.id;
    if (ended->kept) continue;  // else nothing had arrived
    request = {};
    request.vm_name = "vm";
    request.backup_type = engine::BackupType::incremental;
    request.repository_id = "1";
    request.keep_partial = true;
  }
}

io::Task<void> EngineRun::complete_all(engine::Core& core, engine::Job job, size_t number) {
  for (const engine::JobDisk& disk : job.disks) {
    engine::CompleteDisk complete;
    complete.backup_id = job.id;
    complete.disk_id = disk.index;
    complete.change_id =
        fmt::format("52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d{}/{}", disk.index, number);
    co_await engine::complete_job(core, complete);
  }
}

/// What a cut has left of the backup in parts becomes its point, with nothing sent twice.
io::Task<void> EngineRun::go_on_with(engine::Core& core, World& world, std::string job_id) {
  engine::StartBackup request;
  request.resume = std::move(job_id);
  const engine::Job job = co_await engine::start_job(core, request);
  for (const engine::JobDisk& disk : job.disks) {
    co_await send_missing(core, world, disk, SIZE_MAX);
  }
  co_await complete_all(core, job, kJobs);
}

/// Nothing unpublished stays behind, but for what waits to be resumed.
std::optional<std::string> EngineRun::judge_names(World& world, engine::Core& core) {
  std::set<std::string> kept;
  for (const engine::Job& job : core.catalogue->jobs.kept_jobs()) {
    for (const engine::JobDisk& disk : job.disks) kept.insert(disk.image_path);
  }
  for (const auto& [path, node] : world.disk.names()) {
    const std::string image = path.substr(0, path.rfind('.'));
    const bool is_unpublished =
        path.ends_with(engine::kPartialEnding) || path.ends_with(engine::kArrivedEnding);
    if ((is_unpublished && !kept.contains(image)) ||
        (!is_unpublished && path.find(".partial") != path.npos)) {
      return fmt::format("BAD: {} is left over", path);
    }
    const bool is_manifest = path.ends_with(engine::kSumsEnding);
    if (is_manifest && world.disk.find(image) == nullptr && !kept.contains(image)) {
      return fmt::format("BAD: {} has no image", path);
    }
  }
  return std::nullopt;
}

}  // namespace crash
