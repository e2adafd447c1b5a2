// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/beside_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>

#include "engine/jobs/complete_job.h"
#include "engine/jobs/delete_job.h"
#include "engine/jobs/end_job.h"
#include "engine/jobs/start_job.h"
#include "engine/values/refusal.h"
#include "engine/vms.h"
#include "tests/crash/database.h"
#include "tests/crash/engine_process.h"

namespace crash {

namespace {
constexpr int kBackupsOfVm = 5;
constexpr int kDeletions = 8;
constexpr int kRegistrations = 4;
constexpr int kTurnsToEnd = 500;
}  // namespace

BesideRun::BesideRun(Campaign& campaign, uint64_t seed)
    : campaign_(campaign),
      seed_(seed),
      catalogue_path_(fmt::format("/dev/shm/varve-beside-{}/catalogue.db", ::getpid())) {
  std::filesystem::create_directory(io::parent_path(catalogue_path_));
}

BesideRun::~BesideRun() {
  std::error_code ignored;
  std::filesystem::remove_all(io::parent_path(catalogue_path_), ignored);
}

std::optional<Failure> BesideRun::run() {
  ++campaign_.states;
  State empty;
  empty.directories = {"/"};
  world_ = std::make_unique<World>(empty, seed_of(seed_, 21));
  restore_database(catalogue_path_, {});
  Rng rng(seed_of(seed_, 22));
  trouble_ = rng.one_in(2) ? Trouble::none : Trouble(rng.between(1, 4));
  world_->files.noreplace_works = !rng.one_in(4);
  commits_until_trouble_ = rng.between(5, 60);
  const auto refuses = [this] {
    if (trouble_ != Trouble::commit || !playing_ || --commits_until_trouble_ != 0) return false;
    return trouble_has_come_ = true;
  };
  {
    const CommitWatch watch([] {}, refuses);
    EngineProcess process(*world_, ring_.ring(), catalogue_path_);
    world_->scheduler.run(play(process.core()));
    process.end();
  }
  if (!complaint_.empty()) return Failure{complaint_, "0"};
  std::optional<std::string> wrong;
  EngineProcess process(*world_, ring_.ring(), catalogue_path_);
  try {
    world_->scheduler.run(process.come_up());
    wrong = judge(process.core());
  } catch (const std::exception& failure) {
    wrong = fmt::format("BAD: the next start: {}", failure.what());
  }
  process.end();
  return wrong ? std::optional(Failure{*wrong, "0"}) : std::nullopt;
}

io::Task<void> BesideRun::play(engine::Core& core) {
  co_await engine::bring_up(core);
  co_await register_vm(core, "a");
  co_await register_vm(core, "b");
  Rng rng(seed_of(seed_, 23));
  playing_ = true;
  io::TaskScope callers;
  callers.spawn(back_up_often(core, "a", rng.next()));
  callers.spawn(back_up_often(core, "b", rng.next()));
  callers.spawn(delete_often(core, rng.next()));
  callers.spawn(delete_often(core, rng.next()));
  callers.spawn(register_often(core, rng.next()));
  callers.spawn(register_often(core, rng.next()));
  callers.spawn(make_trouble(rng.next()));
  io::TaskScope watch;
  watch.spawn(engine::finish_what_is_unfinished(core));
  co_await callers.join();
  world_->files.faults.call.reset();
  playing_ = false;
  core.shutting_down = true;
  core.stop_watching.set();
  co_await watch.join();
  for (const auto& job : core.jobs.all())
    co_await engine::fail_job(core, job, engine::FailureCode::shutdown, "shut down");
}

io::Task<void> BesideRun::pause(Rng& rng, uint64_t turns_max) {
  for (uint64_t turns = rng.below(turns_max); turns > 0; --turns) {
    co_await world_->scheduler.turn(Turn::client);
  }
}

/// A call may be refused for what it asks. Failing for an internal reason takes trouble.
io::Task<void> BesideRun::attempt(io::Task<void> call, std::string what) {
  std::string failed;
  try {
    co_await std::move(call);
  } catch (const engine::Refusal& refusal) {
    if (refusal.kind == engine::RefusalKind::failed) failed = refusal.what();
  } catch (const std::exception& failure) {
    failed = failure.what();
  }
  const Faults& faults = world_->files.faults;
  const bool derived = faults.struck_path.find("/chain.json") != std::string::npos;
  if (failed.empty() || trouble_has_come_ || (faults.has_struck && !derived)) co_return;
  if (complaint_.empty()) complaint_ = fmt::format("BAD: {} is answered 500: {}", what, failed);
}

io::Task<void> BesideRun::register_vm(engine::Core& core, std::string vm) {
  engine::PutVmContext request;
  request.vm_name = vm;
  request.vm_path = "/DC1/vm/" + vm;
  request.vcenter_host = "vc1.example";
  request.credentials.kind = engine::CredentialsChange::Kind::inline_secret;
  request.credentials.username = "reader";
  request.credentials.password = "secret";
  for (size_t i = 0; i < kDisks; ++i) {
    request.disks.push_back(
        {.disk_id = fmt::format("disk-{}", 2000 + i), .capacity_bytes = kDiskBytes});
  }
  co_await engine::put_vm(core, std::move(request));
}

io::Task<void> BesideRun::register_often(engine::Core& core, uint64_t seed) {
  Rng rng(seed);
  for (int i = 0; i < kRegistrations; ++i) {
    co_await pause(rng, 60);
    const std::string vm = rng.one_in(2) ? "a" : "b";
    co_await attempt(register_vm(core, vm), "registering " + vm);
  }
}

io::Task<void> BesideRun::back_up_often(engine::Core& core, std::string vm, uint64_t seed) {
  Rng rng(seed);
  for (int i = 0; i < kBackupsOfVm; ++i) {
    co_await attempt(back_up(core, vm, rng), "backing up " + vm);
    co_await pause(rng, 20);
  }
}

/// A full or an incremental on what is newest; sometimes it is cancelled.
io::Task<void> BesideRun::back_up(engine::Core& core, std::string vm, Rng& rng) {
  engine::StartBackup request;
  request.vm_name = vm;
  request.backup_type = rng.one_in(3) ? engine::BackupType::full : engine::BackupType::incremental;
  request.repository_id = "1";
  const engine::Job job = co_await engine::start_job(core, request);
  Contents contents(kDisks, Bytes(kDiskBytes));
  for (const engine::JobDisk& disk : job.disks) {
    const auto parent = published_.find(disk.parent_job_id);
    if (parent != published_.end()) contents[disk.index] = parent->second[disk.index];
  }
  co_await fill(core, job, contents, rng);
  if (rng.one_in(5)) {
    co_await pause(rng, 10);
    co_await engine::cancel_job(core, job.id, "changed my mind");
  } else {
    co_await complete(core, job, std::move(contents));
  }
  // Its exports end in the background. A publish that is held up stays.
  for (int i = 0; i < kTurnsToEnd && core.jobs.find(job.id); ++i) {
    co_await world_->scheduler.turn(Turn::client);
  }
}

io::Task<void> BesideRun::fill(engine::Core& core, const engine::Job& job, Contents& contents,
                               Rng& rng) {
  for (const engine::JobDisk& disk : job.disks) {
    const auto exported = core.parts.exports.find(disk.export_name);
    auto connected = exported->connect();
    const nbd::ConnectionPlace place = std::move(std::get<nbd::ConnectionPlace>(connected));
    Op op;
    op.offset = sector_down(rng.below(kDiskBytes));
    op.length = std::min(kSector * rng.between(1, 20), kDiskBytes - op.offset);
    op.tag = rng.next();
    const Bytes bytes = op.bytes();
    io::Buffer buffer = co_await world_->buffers.acquire(bytes.size(), op.offset % 4096);
    std::copy(bytes.begin(), bytes.end(), buffer.data());
    std::copy(bytes.begin(), bytes.end(),
              contents[disk.index].begin() + static_cast<ptrdiff_t>(op.offset));
    co_await exported->device().write(op.offset, std::move(buffer));
  }
}

io::Task<void> BesideRun::complete(engine::Core& core, engine::Job job, Contents contents) {
  engine::JobState state = engine::JobState::running;
  for (const engine::JobDisk& disk : job.disks) {
    engine::CompleteDisk request;
    request.backup_id = job.id;
    request.disk_id = disk.index;
    request.change_id = fmt::format("52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d{}/{}",
                                    disk.index, world_->disk.events());
    // From here on it may be published, whatever is answered.
    if (disk.index + 1 == kDisks) published_[job.id] = contents;
    const engine::CompletedDisk answer = co_await engine::complete_job(core, request);
    state = answer.job_state;
  }
  if (state == engine::JobState::completed) owned_.insert(job.id);
}

io::Task<void> BesideRun::delete_often(engine::Core& core, uint64_t seed) {
  Rng rng(seed);
  for (int i = 0; i < kDeletions; ++i) {
    co_await pause(rng, 150);
    if (published_.empty()) continue;
    auto chosen = published_.begin();
    std::advance(chosen, static_cast<ptrdiff_t>(rng.below(published_.size())));
    const std::string id = chosen->first;
    const bool cascade = rng.one_in(2);
    const auto call = [&]() -> io::Task<void> {
      const auto dependents = core.catalogue->jobs.dependents(id);
      if (cascade) doomed_.insert(dependents.begin(), dependents.end());
      doomed_.insert(id);
      co_await engine::delete_job(core, id, cascade);
    };
    co_await attempt(call(), "deleting " + id);
  }
}

io::Task<void> BesideRun::make_trouble(uint64_t seed) {
  Rng rng(seed);
  co_await pause(rng, 400);
  Files& files = world_->files;
  using Call = Faults::Call;
  constexpr std::array kCalls = {Call::rename, Call::remove, Call::truncate,
                                 Call::write,  Call::sync,   Call::read};
  if (trouble_ == Trouble::call) {
    files.faults.error = EIO;
    files.faults.at = rng.below(4);
    if (rng.one_in(3)) files.faults.of = "/chain.json";
    files.faults.call = kCalls[rng.below(kCalls.size())];
  } else if (trouble_ == Trouble::read_only || trouble_ == Trouble::gone) {
    trouble_has_come_ = true;
    (trouble_ == Trouble::gone ? files.gone : files.read_only) = kRepository;
    co_await pause(rng, 100);
    files.gone.clear();
    files.read_only.clear();
  }
}

}  // namespace crash
