#include "engine/publish.h"

#include <fmt/format.h>

#include "engine/chain_file.h"
#include "engine/end_job.h"
#include "engine/repository_files.h"
#include "engine/sidecar.h"
#include "engine/storage.h"
#include "io/call_on.h"
#include "io/log.h"
#include "io/planted_bug.h"
#include "qcow/image.h"
#include "qcow/layer.h"

namespace engine {
namespace {

/// Writes seal and manifest hash into the header of one unpublished image (PU6).
using PublishHeader = std::function<io::Task<void>(size_t disk, Sha256 manifest_hash)>;

/// Whether PU6 was done before a crash.
io::Task<bool> has_header(io::Runtime data, std::string path, Sha256 manifest_hash) {
  const auto file = co_await data.files.open(path, io::OpenMode::read_only);
  const std::string name = qcow::image_name_of(path);
  const qcow::Header header = co_await qcow::read_header(*file, name);
  co_return header.sealed() && header.record&& header.record->manifest_hash == manifest_hash;
}

/// PU6 and PU7 of one disk. A disk that was renamed before a crash has both behind it.
io::Task<void> finish_image(Core& core, size_t disk, const DecidedImage& image,
                            const PublishHeader& publish_header) {
  const std::string partial = image.image_path + ".partial";
  const auto unpublished = co_await core.files().status(partial, false);
  if (unpublished) {
    const Sha256 hash = sha256(image.sidecar);
    co_await publish_header(disk, hash);
    core.parts.reached("header");
  }
  const std::string path = sidecar_path(image.image_path);
  co_await io::replace_text(core.parts.home, path, image.sidecar);
  core.parts.reached("sidecar");
}

/// PU8 of one disk.
io::Task<void> rename_image(Core& core, const DecidedImage& image) {
  const std::string partial = image.image_path + ".partial";
  const auto unpublished = co_await core.files().status(partial, false);
  if (unpublished) {
    co_await core.files().rename(partial, image.image_path, false);
  } else {
    const auto published = co_await core.files().status(image.image_path, false);
    if (!published) throw std::runtime_error(fmt::format("image {} is gone", partial));
  }
  const std::string directory = io::parent_path(image.image_path);
  UNLESS_PLANTED(directory_not_synced) co_await core.files().sync_directory(directory);
  core.parts.reached("renamed");
}

/// chain.json with the new point, which the catalogue does not show yet.
io::Task<void> write_chain_file(Core& core, const Job& job, const JobDisk& disk) {
  std::vector<Chain> generations =
      core.catalogue->points.chains(job.context_id, job.repository_id, disk.index);
  add_point(generations, point_of(job, disk));
  const std::string path = io::parent_path(disk.image_path) + "/chain.json";
  const std::string text = encode_chain_file(generations);
  co_await io::replace_text(core.parts.home, path, text);
  core.parts.reached("chain file");
}

/// From the decision to the last transaction.
io::Task<void> carry_out(Core& core, const Job& job, const PublishHeader& publish_header) {
  const std::vector<DecidedImage> images = core.catalogue->jobs.decided_images(job.id);
  PLANTED_BUG(completed_before_durable, core.catalogue->jobs.publish(job.id))
  for (size_t at = 0; at < images.size(); ++at) {
    co_await finish_image(core, at, images[at], publish_header);
  }
  for (const DecidedImage& image : images) co_await rename_image(core, image);
  for (const JobDisk& disk : job.disks) co_await write_chain_file(core, job, disk);
  core.parts.reached("publish");
  UNLESS_PLANTED(completed_before_durable) core.catalogue->jobs.publish(job.id);
  core.parts.reached("published");
}

/// What only makes the points easier to find; its failure fails nobody.
io::Task<void> update_links(Core& core, const Job& job) {
  for (const JobDisk& disk : job.disks) {
    try {
      co_await refresh_latest_link(core, job.context_id, job.repository_id, disk.index, disk.key);
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::warning,
              "job {}: the link to the newest point of disk {} is not set: {}", job.id, disk.index,
              failure.what());
    }
  }
}

std::vector<DiskDecision> decide(Core& core, Job& job, Time now) {
  std::vector<DiskDecision> decisions;
  for (JobDisk& disk : job.disks) {
    const ChainPlace place = core.catalogue->points.place(job.context_id, job.repository_id,
                                                          disk.index, disk.parent_image_id);
    disk.generation = place.generation;
    disk.position = place.position;
    const Sidecar sidecar = sidecar_of(job, disk, place.generation, place.position, now);
    decisions.push_back({.disk_index = disk.index,
                         .generation = place.generation,
                         .position = place.position,
                         .sidecar = encode_sidecar(sidecar)});
  }
  return decisions;
}

}  // namespace

io::Task<void> publish_job(Core& core, std::shared_ptr<ActiveJob> job) {
  Job& row = job->row;
  const Time now = core.now();
  const std::vector<DiskDecision> decisions = decide(core, row, now);
  core.parts.reached("decide");
  core.catalogue->jobs.decide(row.id, decisions, now);
  row.state = JobState::finalizing;
  row.completed_at = now;
  core.parts.reached("decided");
  const PublishHeader publish_header = [&](size_t disk, Sha256 hash) {
    return job->ingests[disk]->publish_header(hash, now);
  };
  co_await carry_out(core, row, publish_header);
  row.state = JobState::completed;
  row.nbd_targets.clear();
  for (JobDisk& disk : row.disks) {
    disk.state = DiskState::completed;
    disk.port = 0;
  }
  ++core.tally.backups[{"completed", row.type}];
  co_await update_links(core, row);
  io::log(io::LogLevel::info, "job {} of VM {} completed: {} disks published", row.id, row.vm_name,
          row.disks.size());
}

io::Task<void> retire_job(Core& core, std::shared_ptr<ActiveJob> job) {
  const io::Grant step = co_await job->steps.lock();
  co_await close_exports(core, *job);
  core.jobs.remove(job->row.id);
  co_await release_exports(core, job);
}

io::Task<void> roll_forward(Core& core, Job job) {
  const auto repository = core.catalogue->repositories.find(job.repository_id);
  const std::string root = repository ? repository->directory : "";
  const io::Runtime data = core.parts.data.front();
  const auto published =
      static_cast<uint64_t>(job.completed_at.value_or(core.now()).time_since_epoch().count());
  const auto write_header = [&](std::string path, Sha256 hash) -> io::Task<void> {
    const bool done = co_await has_header(data, path, hash);
    if (done) co_return;
    qcow::ImageOptions options;
    options.repository_root = root;
    const auto image = co_await qcow::Image::open(data, path, options);
    std::exception_ptr failure;
    try {
      co_await image->seal();
      co_await image->publish_header(hash, published);
    } catch (...) {
      failure = std::current_exception();
    }
    co_await image->abandon();
    if (failure) std::rethrow_exception(failure);
  };
  const PublishHeader publish_header = [&](size_t disk, Sha256 hash) -> io::Task<void> {
    const std::string path = job.disks[disk].image_path + ".partial";
    const auto there = [&]() -> io::Task<void> { return write_header(path, hash); };
    co_await io::call_on(data.executor, core.parts.home.executor, there);
  };
  co_await carry_out(core, job, publish_header);
  co_await update_links(core, job);
}

}  // namespace engine
