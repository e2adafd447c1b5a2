// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/publish.h"

#include <fmt/format.h>

#include <cassert>

#include "engine/jobs/end_job.h"
#include "engine/jobs/repository_files.h"
#include "engine/jobs/repository_watch.h"
#include "engine/repository/own_image.h"
#include "engine/repository/sidecar.h"
#include "engine/values/layout.h"
#include "engine/values/log_fields.h"
#include "io/call_on.h"
#include "io/counted.h"
#include "io/log.h"
#include "io/planted_bug.h"
#include "qcow/image/publish_header.h"

namespace engine {
namespace {

/// An image of a decided job is lost; trying again is of no use.
class ImageLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Writes seal and manifest hash into the header of one unpublished image (PU6).
using PublishHeader = std::function<io::Task<void>(size_t disk, qcow::Publication publication)>;

/// What an image's two names stand for.
struct NamedFiles {
  NamedFile partial = NamedFile::missing, published = NamedFile::missing;
  bool has_ours() const { return partial == NamedFile::ours || published == NamedFile::ours; }
};

io::Task<NamedFiles> look_at_names(io::FileSystem& files, std::string image_path,
                                   std::string uuid) {
  NamedFiles found;
  const std::string partial = partial_path(image_path);
  found.partial = co_await look_at_image(files, partial, uuid);
  found.published = co_await look_at_image(files, image_path, uuid);
  co_return found;
}

/// Throws ImageLost. What is missing proves nothing while the directory may be an empty mount
/// point, or was one a moment ago: then another error is thrown.
io::Task<void> prove_lost(Catalogue& catalogue, io::FileSystem& files, std::string repository_id,
                          std::string image_path, std::string uuid) {
  const auto repository = catalogue.repositories.find(repository_id);
  if (repository) co_await identify(catalogue, files, *repository);
  const std::string directory = io::parent_path(image_path);
  const auto there = co_await files.status(directory);
  if (!there) throw std::runtime_error(fmt::format("{} does not exist", directory));
  const NamedFiles again = co_await look_at_names(files, image_path, uuid);
  if (again.has_ours()) {
    throw std::runtime_error(fmt::format("{} was away for a moment", image_path));
  }
  if (again.partial == NamedFile::missing) {
    throw ImageLost(fmt::format("{} is gone", partial_path(image_path)));
  }
  throw ImageLost(
      fmt::format("{} is not the image that this backup has written", partial_path(image_path)));
}

/// Whether the image still has its unpublished name. Throws ImageLost when it is proven that it has
/// neither.
io::Task<bool> is_unpublished(Catalogue& catalogue, io::FileSystem& files,
                              std::string repository_id, std::string image_path, std::string uuid) {
  const NamedFiles found = co_await look_at_names(files, image_path, uuid);
  if (found.published == NamedFile::ours) co_return false;
  if (found.partial != NamedFile::ours) {
    co_await prove_lost(catalogue, files, std::move(repository_id), image_path, uuid);
  }
  if (found.published != NamedFile::missing) {
    PLANTED_BUG(delete_without_identity, throw ImageLost(image_path))
    throw std::runtime_error(fmt::format(
        "{} is another file, which came while the backup ran; move it to another place, "
        "and the backup is published",
        image_path));
  }
  co_return true;
}

/// Header and sidecar of one disk (PU6, PU7). One that was renamed already has the header.
io::Task<void> finish_image(Core& core, const Job& job, size_t at, const DecidedImage& image,
                            const PublishHeader& publish_header) {
  const bool unpublished = co_await is_unpublished(*core.catalogue, core.files(), job.repository_id,
                                                   image.image_path, job.disks[at].image_uuid);
  if (unpublished) {
    qcow::Publication publication;
    publication.manifest_hash = sha256(image.sidecar);
    publication.time = static_cast<uint64_t>(job.decided_at->time_since_epoch().count());
    co_await publish_header(at, publication);
    core.parts.reached("header");
  }
  const std::string path = sidecar_path(image.image_path);
  co_await io::replace_text(core.parts.home, path, image.sidecar);
  core.parts.reached("sidecar");
}

/// Takes `.partial` from the name of one image, never over another file (PU8).
io::Task<void> rename_image(io::FileSystem& files, const DecidedImage& image) {
  const std::string partial = partial_path(image.image_path);
  const auto unpublished = co_await files.status(partial, false);
  const auto published = co_await files.status(image.image_path, false);
  const std::string directory = io::parent_path(image.image_path);
  if (!unpublished && !published) {  // it was there a moment ago: its file system has gone
    throw std::runtime_error(fmt::format("rename {}: no such file any more", partial));
  }
  if (unpublished && published) {  // a rename in two steps was interrupted between them
    if (unpublished->device != published->device || unpublished->inode != published->inode) {
      throw std::runtime_error(fmt::format(
          "{} and {} are two files; move the one away that is a copy", partial, image.image_path));
    }
    co_await files.sync_directory(directory);
    co_await files.remove(partial);
  } else if (unpublished) {
    co_await files.rename(partial, image.image_path, false);
  }
  UNLESS_PLANTED(directory_not_synced) co_await files.sync_directory(directory);
}

/// From the decision to the last transaction. The caller has the context's turn.
io::Task<void> carry_out(Core& core, const Job& job, const PublishHeader& publish_header) {
  const std::vector<DecidedImage> images = core.catalogue->jobs.decided_images(job.id);
  assert(job.decided_at && "only a decided job is carried out");
  core.parts.reached("decided");
  PLANTED_BUG(completed_before_durable, core.catalogue->jobs.publish(job.id))
  for (size_t at = 0; at < images.size(); ++at) {
    co_await finish_image(core, job, at, images[at], publish_header);
  }
  for (const DecidedImage& image : images) {
    co_await rename_image(core.files(), image);
    core.parts.reached("renamed");
  }
  core.parts.reached("publish");
  UNLESS_PLANTED(completed_before_durable) core.catalogue->jobs.publish(job.id);
  core.parts.reached("published");
}

/// A point is not gone on with. What stays is swept at the next start.
io::Task<void> remove_notes(io::FileSystem& files, Job job) {
  if (!job.keep_partial) co_return;
  try {
    for (const JobDisk& disk : job.disks) {
      const std::string notes = arrived_path(disk.image_path);
      const auto there = co_await files.status(notes, false);
      if (there) co_await files.remove(notes);
    }
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, about(job, failure.what()), "job {}: {}", job.id,
            failure.what());
  }
}

/// One try; what held it up, or "". Throws ImageLost.
io::Task<std::string> try_to_publish(Core& core, const Job& job,
                                     const PublishHeader& publish_header) {
  const io::Grant turn = co_await core.turns.take(job.repository_id, job.context_id);
  try {
    co_await carry_out(core, job, publish_header);
  } catch (const ImageLost&) {
    throw;
  } catch (const std::exception& failure) {
    co_return failure.what();
  }
  co_await remove_notes(core.files(), job);
  for (const JobDisk& disk : job.disks) {
    co_await refresh_disk_files(core, job.context_id, job.repository_id, disk.index, disk.key);
  }
  co_return "";
}

/// Ends a decided job that can never be published. Throws when the catalogue cannot take it.
io::Task<void> give_up(Core& core, Job job, std::string cause) {
  const std::vector<DecidedImage> images = core.catalogue->jobs.decided_images(job.id);
  core.catalogue->jobs.end(job.id, JobState::failed, cause, core.now());
  io::log(io::LogLevel::error, about(job, cause), "job {} of VM {} failed: {}", job.id, job.vm_name,
          cause);
  ++core.tally.backups[{"failed", job.type}];
  core.tell_end(job, JobState::failed, cause, FailureCode::storage);
  co_await discard_decided_images(core, std::move(job), images);
}

/// Tries it, and gives up when an image is lost. Returns the job's state then; `cause` says why it
/// is not completed.
io::Task<JobState> publish_or_give_up(Core& core, const Job& job,
                                      const PublishHeader& publish_header, std::string& cause) {
  bool lost = false;
  try {
    cause = co_await try_to_publish(core, job, publish_header);
    PLANTED_BUG(decided_job_discarded, lost = !cause.empty())
  } catch (const ImageLost& proof) {
    lost = true;
    cause = proof.what();
  }
  if (!lost && cause.empty()) {
    ++core.tally.backups[{"completed", job.type}];
    io::log(io::LogLevel::info, about(job), "job {} of VM {} completed: {} published", job.id,
            job.vm_name, io::counted(job.disks.size(), "disk"));
    core.tell_end(job, JobState::completed, "");
    co_return JobState::completed;
  }
  try {
    if (lost) {
      co_await give_up(core, job, cause);
      co_return JobState::failed;
    }
    core.catalogue->jobs.set_publish_trouble(job.id, cause);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, about(job, failure.what()), "job {}: {}", job.id, failure.what());
  }
  co_return JobState::finalizing;
}

std::vector<DiskDecision> decide(Catalogue& catalogue, Job& job, Time now) {
  std::vector<DiskDecision> decisions;
  for (JobDisk& disk : job.disks) {
    disk.place =
        catalogue.points.place(job.context_id, job.repository_id, disk.index, disk.parent_image_id);
    decisions.push_back({.disk_index = disk.index,
                         .place = disk.place,
                         .sidecar = encode_sidecar(sidecar_of(job, disk, now))});
  }
  return decisions;
}

}  // namespace

io::Task<void> publish_job(Core& core, std::shared_ptr<ActiveJob> job) {
  Job& row = job->row;
  // Some disks were sealed long ago.
  for (const auto& ingest : job->ingests) co_await ingest->require_parents();
  const Time now = core.now();
  const std::vector<DiskDecision> decisions = decide(*core.catalogue, row, now);
  core.parts.reached("decide");
  core.catalogue->jobs.decide(row.id, decisions, now);
  row.state = JobState::finalizing;
  row.decided_at = now;
  const PublishHeader publish_header = [&](size_t disk, qcow::Publication publication) {
    return job->ingests[disk]->publish_header(publication);
  };
  std::string cause;
  row.state = co_await publish_or_give_up(core, row, publish_header, cause);
  row.error_message = cause;
  if (row.state == JobState::finalizing) core.unfinished.add_job(row.id, cause);
  row.completed_at = now;
  if (row.state != JobState::completed) co_return;
  row.nbd_targets.clear();
  for (JobDisk& disk : row.disks) {
    disk.state = DiskState::completed;
    disk.port = 0;
  }
}

io::Task<void> retire_job(Core& core, std::shared_ptr<ActiveJob> job) {
  const io::Grant step = co_await job->steps.lock();
  co_await close_exports(core.ports, *job);
  core.jobs.remove(job->row.id);
  co_await release_exports(core.tally, core.background, job);
}

io::Task<void> roll_forward(Core& core, Job job) {
  const io::Runtime data = core.parts.data.front();
  const PublishHeader publish_header = [&](size_t at,
                                           qcow::Publication publication) -> io::Task<void> {
    const JobDisk& disk = job.disks[at];
    const std::string partial = partial_path(disk.image_path);
    const auto there = [&]() -> io::Task<void> {
      return qcow::publish_sealed(data, partial, disk.image_uuid, publication);
    };
    co_await io::call_on(data.executor, core.parts.home.executor, there);
  };
  std::string cause;
  const JobState state = co_await publish_or_give_up(core, job, publish_header, cause);
  if (state == JobState::finalizing) throw std::runtime_error(cause);
}

}  // namespace engine
