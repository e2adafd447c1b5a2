// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/requests.h"
#include "engine/values/types.h"
#include "engine/values/views.h"

namespace engine {

/// What `complete` records of one disk, once its image is sealed.
struct SealRecord {
  std::string change_id;
  DiskCounters counters;
  uint64_t file_bytes = 0, allocated_bytes = 0;
  std::string sums_sha256, parent_root;
  std::vector<Warning> warnings;  ///< added to the job's
};

/// What the decision to publish fixes for one disk.
struct DiskDecision {
  uint32_t disk_index = 0;
  ChainPlace place;     ///< PointCatalogue::place
  std::string sidecar;  ///< the exact bytes of the file
};

/// An image of a job that was decided and not yet published.
struct DecidedImage {
  uint32_t disk_index = 0;
  std::string image_path, sidecar;
};

/// An image that some row owns; other files of a repository are strays.
struct KnownImage {
  std::string job_id, image_id, image_path;
  JobState job_state = JobState::preparing;
  bool deleting = false;
  bool kept = false;  ///< unpublished, for a job that resumes it
};

struct JobPage {
  std::vector<Job> jobs;
  uint64_t total = 0;  ///< matches before limit and offset
};

struct JobTotals {
  uint64_t backup_count = 0, total_size_bytes = 0;
  std::optional<Time> last_backup_at;
};

/// The jobs and their disks, from the first row to the last.
///
/// Invariant: a VM has at most one active job. Ids, export names and image ids are given out once,
/// for ever. A job's state moves only as docs/jobs.md, "States" says; a call that does not fit the
/// state throws std::logic_error and changes nothing. On the catalogue's thread.
class JobCatalogue {
 public:
  explicit JobCatalogue(Db& db) : db_(db) {}

  // ---- life ----

  /// Inserts job and disks as `preparing`, and fills in what only the catalogue knows: job.id, and
  /// of each disk id, job_id, image_id, image_path (below `repository_directory`), export_name,
  /// created_at. The caller gives context, repository, type, tags, warnings, created_at and of each
  /// disk key, index, capacity, type and parent. Throws backup_already_running.
  /// With `name_secret`, the names of the exports carry it. Of a job that resumes another the disks
  /// come with image_id and image_path: they are the other's no longer, in the same transaction.
  Job insert(Job job, const std::string& repository_directory, const std::string& name_secret = {});

  void set_ports(const std::string& job_id, const std::string& nbd_targets,
                 const std::vector<std::pair<uint32_t, uint16_t>>& port_by_index);
  /// preparing -> running. Nothing happens when the job has moved on already (a fast client).
  void set_running(const std::string& job_id, Time now);

  /// pending -> transferring, at the first connection.
  void set_transferring(const std::string& job_id, uint32_t disk_index);
  /// pending or transferring -> sealing.
  void set_sealing(const std::string& job_id, uint32_t disk_index);
  /// sealing -> sealed, durably.
  void set_sealed(const std::string& job_id, uint32_t disk_index, const SealRecord& record,
                  Time now);
  void set_counters(const std::string& job_id, uint32_t disk_index, const DiskCounters& counters);
  void set_handed_out(const std::string& job_id, uint32_t disk_index, const std::string& change_id);

  /// running (or preparing) -> finalizing: the decision. Every disk must be sealed and decided on.
  /// `now` becomes the job's completed_at.
  void decide(const std::string& job_id, const std::vector<DiskDecision>& disks, Time now);
  std::vector<DecidedImage> decided_images(const std::string& job_id);
  /// What holds up the publish of a `finalizing` job; shown as its error_message until it is over.
  void set_publish_trouble(const std::string& job_id, const std::string& cause);
  /// finalizing -> completed: points, chains, counters and last_backup_* in one transaction.
  void publish(const std::string& job_id);

  /// Any active state -> failed or cancelled, with its unfinished disks. Nothing happens when the
  /// job has ended already. `kept`: what has arrived waits for a job that resumes it.
  void end(const std::string& job_id, JobState failed_or_cancelled, const std::string& cause,
           Time now, bool kept = false);
  /// What has arrived is not to be resumed any more, durably; its files may go. False when it was
  /// not kept.
  bool forget_kept(const std::string& job_id);

  /// A telemetry report; only what is not empty or zero overwrites.
  void set_telemetry(const std::string& job_id, const Telemetry& report, Time now);

  /// Inserts a completed job that a repository's files describe, with its points. A row of the same
  /// id that is not completed makes way, and jobs that were to be resumed lose the image names that
  /// this one has: the catalogue is an older copy. Throws DbError (is_contradiction) or
  /// std::logic_error when it does not fit what is there. Inside the caller's transaction.
  void adopt(Job job);

  // ---- questions ----

  std::optional<Job> find(std::string_view job_id);
  std::optional<Job> active_job(std::string_view context_id);
  /// preparing, running and finalizing ones, oldest first.
  std::vector<Job> active_jobs();
  /// Failed ones of which what has arrived is kept.
  std::vector<Job> kept_jobs();
  /// Newest first. `filter.vm_name` is a registered name, else an inventory name.
  JobPage list(const BackupFilter& filter);
  JobTotals totals(std::string_view context_id, std::string_view repository_id);
  /// Completed jobs by the day on which they began, oldest first.
  std::vector<BackupDay> by_day(const BackupDaysQuery& query, Time now);
  /// A state that no job is in is left out.
  std::map<JobState, uint64_t> count_by_state();
  /// Every image of the repository that a row owns.
  std::vector<KnownImage> known_images(std::string_view repository_id);
  void move_image(std::string_view image_id, std::string_view image_path);

  // ---- deletion (docs/jobs.md) ----

  /// The jobs with a disk on a point of this one, active ones included, and those on theirs: newest
  /// first, so that they can be deleted in this order.
  std::vector<std::string> dependents(const std::string& job_id);
  /// Marks ended jobs, durably: from now on they are no parents and in no list.
  void mark_deleting(const std::vector<std::string>& job_ids);
  /// The marked ones, newest first.
  std::vector<Job> deleting_jobs();
  /// Removes the rows of a marked job, and chains that are empty then.
  void erase(const std::string& job_id, Time now);

 private:
  /// Throws std::logic_error when there is no such job.
  Job get(const std::string& job_id);
  void insert_rows(Job& job);
  void take_over_images(const std::string& failed_job_id);
  void disown_images(const std::string& job_id);
  bool clear_kept(const std::string& job_id);
  bool make_way_for(const Job& job);
  void count_start(const Job& job);
  void append_warnings(const std::string& job_id, const std::vector<Warning>& added);
  void publish_disk(const Job& job, const JobDisk& disk, Time now);
  void count_success(const Job& job, Time now);

  Db& db_;
};

}  // namespace engine
