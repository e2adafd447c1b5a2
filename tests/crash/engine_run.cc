// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/engine_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "engine/jobs/start_job.h"
#include "engine/vms.h"
#include "tests/crash/engine_process.h"

namespace crash {

EngineRun::EngineRun(Campaign& campaign, uint64_t seed)
    : campaign_(campaign),
      seed_(seed),
      catalogue_path_(fmt::format("/dev/shm/varve-crash-{}/catalogue.db", ::getpid())),
      content_(kDisks, Bytes(kDiskBytes)),
      history_(kDisks),
      snapshot_(kDisks) {
  std::filesystem::create_directory(io::parent_path(catalogue_path_));
}

EngineRun::~EngineRun() {
  std::error_code ignored;
  std::filesystem::remove_all(io::parent_path(catalogue_path_), ignored);
}

std::optional<Failure> EngineRun::run() {
  State empty;
  empty.directories = {"/"};
  world_ = std::make_unique<World>(empty, seed_of(seed_, 7));
  world_->files.noreplace_works = seed_ % 4 != 0;
  restore_database(catalogue_path_, {});
  {
    const CommitWatch watch([this] {
      commits_.push_back(read_database(catalogue_path_));
      world_->disk.catalogue_committed();
    });
    EngineProcess process(*world_, ring_.ring(), catalogue_path_, [this](std::string_view step) {
      if (step == "decided") jobs_.back().decided = world_->disk.moment();
    });
    world_->scheduler.run(play(process.core()));
    process.end();
  }
  if (const auto wrong = judge_torn_proofs()) return Failure{*wrong, "0"};
  return judge_cuts();
}

io::Task<void> EngineRun::play(engine::Core& core) {
  co_await engine::bring_up(core);
  engine::PutVmContext vm;
  vm.vm_name = "vm";
  vm.vm_path = "/DC1/vm/vm";
  vm.vcenter_host = "vc1.example";
  vm.credentials.kind = engine::CredentialsChange::Kind::reference;
  vm.credentials.reference = "vc1";
  for (size_t i = 0; i < kDisks; ++i) {
    vm.disks.push_back({.disk_id = fmt::format("disk-{}", 2000 + i), .capacity_bytes = kDiskBytes});
  }
  co_await engine::put_vm(core, vm);
  registered_at_ = world_->disk.events();
  commits_of_register_ = commits_.size();
  Rng rng(seed_of(seed_, 8));
  for (size_t number = 0; number < kJobs; ++number) {
    if (number > 0 && seed_ % 2 == 0) {
      co_await back_up_in_parts(core, rng);
    } else {
      co_await back_up(core, *world_, rng, number);
    }
    for (size_t disk = 0; disk < kDisks; ++disk) history_[disk].push_back(content_[disk]);
    // A job's exports end in the background; a VM has one job at a time.
    while (!core.jobs.empty()) {
      co_await io::sleep(world_->scheduler, world_->scheduler, std::chrono::milliseconds(50));
    }
    co_await verify_and_note(core);
  }
  co_await recover(core);
  co_await delete_newest(core);
}

/// One job from its start to the answer to its last `complete`.
io::Task<void> EngineRun::back_up(engine::Core& core, World& world, Rng& rng, size_t number) {
  jobs_.push_back({world.disk.moment()});
  engine::StartBackup request;
  request.vm_name = "vm";
  request.backup_type = number == 0 ? engine::BackupType::full : engine::BackupType::incremental;
  request.repository_id = "1";
  const engine::Job job = co_await engine::start_job(core, request);
  co_await fill(core, world, rng, job);
  co_await complete_all(core, job, number + 1);
}

io::Task<void> EngineRun::fill(engine::Core& core, World& world, Rng& rng, const engine::Job& job) {
  constexpr uint64_t kClusterBytes = 64 << 10;
  for (const engine::JobDisk& disk : job.disks) {
    const auto exported = core.parts.exports.find(disk.export_name);
    auto connected = exported->connect();
    const nbd::ConnectionPlace place = std::move(std::get<nbd::ConnectionPlace>(connected));
    for (int i = 0; i < 6; ++i) {
      Op op;
      op.offset = sector_down(rng.below(kDiskBytes));
      op.length = std::min(kSector * rng.between(1, 200), kDiskBytes - op.offset);
      op.tag = rng.next();
      Bytes bytes = op.bytes();
      const auto& points = history_[disk.index];
      if (!points.empty() && rng.one_in(3)) {  // what the newest point holds is sent again
        op.offset = op.offset / kClusterBytes * kClusterBytes;
        bytes.resize(std::min(kClusterBytes * rng.between(1, 3), kDiskBytes - op.offset));
        std::copy_n(points.back().begin() + static_cast<ptrdiff_t>(op.offset), bytes.size(),
                    bytes.begin());
      }
      io::Buffer buffer = co_await world.buffers.acquire(bytes.size(), op.offset % 4096);
      std::copy(bytes.begin(), bytes.end(), buffer.data());
      std::copy(bytes.begin(), bytes.end(),
                content_[disk.index].begin() + static_cast<ptrdiff_t>(op.offset));
      co_await exported->device().write(op.offset, std::move(buffer));
    }
  }
}

}  // namespace crash
