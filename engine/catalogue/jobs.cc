// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/jobs.h"

#include <fmt/format.h>

#include <stdexcept>

#include "engine/catalogue/tables.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"

/// Rows in, rows out: how a job gets into the catalogue, and how jobs are found there again.
/// What happens to a job in between: job_life.cc; how it goes: deletion.cc.
namespace engine {
namespace {

constexpr std::string_view kActive = "('preparing', 'running', 'finalizing')";

/// `rest` begins with WHERE or ORDER BY.
template <typename... Values>
std::vector<Job> select_jobs(Db& db, std::string_view rest, const Values&... values) {
  std::vector<Job> jobs = select_rows(db, kJobTable, fmt::format("FROM job {}", rest), values...);
  for (Job& job : jobs) {
    job.disks = select_rows(db, kJobDiskTable, "FROM job_disk WHERE job_id = ? ORDER BY disk_index",
                            job.id);
  }
  return jobs;
}

bool is_used(Db& db, const std::string& name) {
  return Stmt(db, "SELECT 1 FROM used_name WHERE name = ?", name).step();
}

std::string safe_name_of(Db& db, const std::string& context_id) {
  Stmt select(db, "SELECT safe_name FROM vm WHERE context_id = ?", context_id);
  if (const auto safe = select.first<std::string>()) return *safe;
  throw std::logic_error("insert job: no VM context " + context_id);
}

void give_names(Db& db, Job& job, const std::string& repository_directory,
                const std::string& name_secret) {
  const std::string safe = safe_name_of(db, job.context_id);
  for (uint32_t attempt = 1;; ++attempt) {
    job.id = job_name(safe, job.created_at, attempt);
    bool is_free = !is_used(db, job.id);
    for (JobDisk& disk : job.disks) {
      disk.job_id = job.id;
      disk.created_at = job.created_at;
      disk.export_name = name_secret.empty()
                             ? export_name(safe, job.created_at, attempt, disk.index)
                             : export_name(safe, job.created_at, attempt, disk.index, name_secret);
      is_free = is_free && !is_used(db, disk.export_name);
      if (!job.resumes.empty()) continue;
      disk.image_id = image_name(safe, job.created_at, attempt, disk.index);
      disk.image_path = disk_directory(repository_directory, job.context_id, disk.index) + '/' +
                        image_file_name(disk.image_id);
      is_free = is_free && !is_used(db, disk.image_id);
    }
    if (is_free) return;
  }
}

}  // namespace

// ---------------------------------------------------------------- in

Job JobCatalogue::insert(Job job, const std::string& repository_directory,
                         const std::string& name_secret) {
  Tx tx(db_);
  if (const std::optional<Job> running = active_job(job.context_id)) {
    throw refusals::backup_already_running(running->id);
  }
  job.state = JobState::preparing;
  job.kept = false;
  if (!job.resumes.empty()) take_over_images(job.resumes);
  give_names(db_, job, repository_directory, name_secret);
  count_start(job);
  insert_rows(job);
  tx.commit();
  return job;
}

void JobCatalogue::take_over_images(const std::string& failed_job_id) {
  if (!clear_kept(failed_job_id)) {
    throw refusals::not_resumable(failed_job_id, "was resumed or removed meanwhile");
  }
  disown_images(failed_job_id);
}

/// An image has one owner; the rows of the job that had it keep a name that no image has.
void JobCatalogue::disown_images(const std::string& job_id) {
  Stmt(db_, "UPDATE job_disk SET image_id = image_id || '+' || id WHERE job_id = ?", job_id).run();
}

bool JobCatalogue::clear_kept(const std::string& job_id) {
  return Stmt(db_, "UPDATE job SET kept = 0 WHERE id = ? AND kept = 1", job_id).run() > 0;
}

bool JobCatalogue::forget_kept(const std::string& job_id) {
  Tx tx(db_);
  const bool was_kept = clear_kept(job_id);
  tx.commit();
  return was_kept;
}

void JobCatalogue::count_start(const Job& job) {
  Stmt update(db_,
              "UPDATE backup_context SET total_backups_run = total_backups_run + 1, updated_at = ? "
              "WHERE context_id = ? AND repository_id = ?",
              job.created_at, job.context_id, job.repository_id);
  if (update.run() > 0) return;
  const std::string safe = safe_name_of(db_, job.context_id);
  std::string id = backup_context_name(safe, job.created_at);
  for (uint32_t attempt = 2; Stmt(db_, "SELECT 1 FROM backup_context WHERE id = ?", id).step();) {
    id = backup_context_name(safe, job.created_at, attempt++);
  }
  Stmt(db_,
       "INSERT INTO backup_context (id, context_id, repository_id, total_backups_run, created_at, "
       "updated_at) VALUES (?, ?, ?, 1, ?, ?)",
       id, job.context_id, job.repository_id, job.created_at, job.created_at)
      .run();
}

void JobCatalogue::insert_rows(Job& job) {
  insert_row(db_, "job", kJobTable, job);
  Stmt(db_, "INSERT INTO used_name (name) VALUES (?)", job.id).run();
  for (JobDisk& disk : job.disks) {
    insert_row(db_, "job_disk", kJobDiskTable, disk);
    disk.id = db_.last_insert_id();
    Stmt(db_, "INSERT INTO used_name (name) VALUES (?)", disk.export_name).run();
    // A job that resumes another has its images' names too.
    Stmt(db_, "INSERT OR IGNORE INTO used_name (name) VALUES (?)", disk.image_id).run();
  }
}

// ---------------------------------------------------------------- out

std::optional<Job> JobCatalogue::find(std::string_view job_id) {
  return first_of(select_jobs(db_, "WHERE id = ?", job_id));
}

Job JobCatalogue::get(const std::string& job_id) {
  std::optional<Job> job = find(job_id);
  if (!job) throw std::logic_error("no job " + job_id);
  return std::move(*job);
}

std::optional<Job> JobCatalogue::active_job(std::string_view context_id) {
  return first_of(
      select_jobs(db_, fmt::format("WHERE context_id = ? AND state IN {}", kActive), context_id));
}

std::vector<Job> JobCatalogue::active_jobs() {
  return select_jobs(db_, fmt::format("WHERE state IN {} ORDER BY row", kActive));
}

std::vector<Job> JobCatalogue::kept_jobs() {
  return select_jobs(db_, "WHERE kept = 1 ORDER BY row");
}

std::vector<Job> JobCatalogue::deleting_jobs() {
  return select_jobs(db_, "WHERE deleting = 1 ORDER BY row DESC");
}

namespace {

/// The state of a job in words that an index can be asked by: the shown ones are coarser.
std::string condition_of(std::optional<ShownStatus> status) {
  if (!status) return "?4 IS NULL";
  // The first condition is that of the index of active jobs, word for word.
  const std::string active = fmt::format("?4 IS NOT NULL AND state IN {} AND ", kActive);
  if (*status == ShownStatus::pending) return active + "state = 'preparing'";
  if (*status == ShownStatus::running) return active + "state IN ('running', 'finalizing')";
  return "state = ?4";
}

/// Only what is asked for is a condition, so that few running jobs among many cost little. Every
/// parameter is named, whether it matters or not.
std::string conditions_of(const BackupFilter& filter) {
  const std::string_view of_vm =
      filter.vm_name.empty()
          ? "?1 = ''"
          : "context_id IN (SELECT context_id FROM vm WHERE vm_name = ?1 OR (inventory_name = ?1 "
            "AND NOT EXISTS (SELECT 1 FROM vm WHERE vm_name = ?1)))";
  return fmt::format(
      "WHERE deleting = 0 AND {} AND {} AND {} AND (?3 = '' OR repository_id = ?3) "
      "AND (?5 IS NULL OR type = ?5) ",
      of_vm, filter.vm_context_id.empty() ? "?2 = ''" : "context_id = ?2",
      condition_of(filter.status));
}

/// By the index of times, unless few rows are looked for: it would find them last.
std::string_view order_of(const BackupFilter& filter) {
  const bool are_few = filter.status && *filter.status != ShownStatus::completed;
  return are_few ? "ORDER BY +created_at DESC, row DESC" : "ORDER BY created_at DESC, row DESC";
}

}  // namespace

JobPage JobCatalogue::list(const BackupFilter& filter) {
  const std::string matching = conditions_of(filter);
  JobPage page;
  page.total = Stmt(db_, fmt::format("SELECT count(*) FROM job {}", matching), filter.vm_name,
                    filter.vm_context_id, filter.repository_id, filter.status, filter.backup_type)
                   .first<uint64_t>()
                   .value();
  // SQLite reads a negative limit as none, so that larger numbers may be cut.
  const auto bounded = [](uint64_t number) { return std::min<uint64_t>(number, INT64_MAX); };
  page.jobs = select_jobs(db_, fmt::format("{} {} LIMIT ? OFFSET ?", matching, order_of(filter)),
                          filter.vm_name, filter.vm_context_id, filter.repository_id, filter.status,
                          filter.backup_type, bounded(filter.limit), bounded(filter.offset));
  return page;
}

JobTotals JobCatalogue::totals(std::string_view context_id, std::string_view repository_id) {
  static constexpr auto kTotals =
      columns<JobTotals>(derived("count(DISTINCT j.id)", &JobTotals::backup_count),
                         derived("sum(d.bytes_received)", &JobTotals::total_size_bytes),
                         derived("max(j.completed_at)", &JobTotals::last_backup_at));
  return select_row(db_, kTotals,
                    "FROM job j JOIN job_disk d ON d.job_id = j.id WHERE j.context_id = ? "
                    "AND j.repository_id = ? AND j.state = 'completed' AND j.deleting = 0",
                    context_id, repository_id)
      .value();
}

std::vector<BackupDay> JobCatalogue::by_day(const BackupDaysQuery& query, Time now) {
  static constexpr auto kColumns = columns<BackupDay>(
      derived("created_at / 86400 * 86400 AS day", &BackupDay::date),
      derived("count(*)", &BackupDay::backup_count),
      derived("sum((SELECT sum(d.bytes_received) FROM job_disk d WHERE d.job_id = job.id))",
              &BackupDay::bytes_received),
      derived("sum((SELECT sum(d.bytes_stored) FROM job_disk d WHERE d.job_id = job.id))",
              &BackupDay::bytes_stored),
      derived("sum(max(completed_at - coalesce(started_at, created_at), 0))", &BackupDay::seconds));
  const auto today = std::chrono::floor<std::chrono::days>(now);
  const Time since = today - std::chrono::days(std::max(query.days, 1u) - 1);
  return select_rows(db_, kColumns,
                     "FROM job WHERE created_at >= ?1 AND state = 'completed' AND deleting = 0 "
                     "AND (?2 = '' OR vm_name = ?2) AND (?3 = '' OR repository_id = ?3) "
                     "GROUP BY day ORDER BY day",
                     since, query.vm_name, query.repository_id);
}

std::map<JobState, uint64_t> JobCatalogue::count_by_state() {
  std::map<JobState, uint64_t> counts;
  Stmt rest(db_,
            "SELECT state, count(*) FROM job WHERE state <> 'completed' AND deleting = 0 "
            "GROUP BY state");
  // Most jobs are completed: they are what is left when the others are counted, by their index.
  Stmt all(db_,
           "SELECT (SELECT count(*) FROM job) - (SELECT count(*) FROM job WHERE deleting = 1)");
  auto completed = all.first<uint64_t>().value();
  while (rest.step()) {
    const auto state = rest.take<JobState>();
    counts[state] = rest.take<uint64_t>();
    completed -= counts[state];
  }
  if (completed > 0) counts[JobState::completed] = completed;
  return counts;
}

std::vector<KnownImage> JobCatalogue::known_images(std::string_view repository_id) {
  static constexpr auto kColumns = columns<KnownImage>(
      col("j.id", &KnownImage::job_id), col("d.image_id", &KnownImage::image_id),
      col("d.image_path", &KnownImage::image_path), col("j.state", &KnownImage::job_state),
      col("j.deleting", &KnownImage::deleting), col("j.kept", &KnownImage::kept));
  return select_rows(
      db_, kColumns,
      "FROM job j JOIN job_disk d ON d.job_id = j.id WHERE j.repository_id = ? "
      "AND (j.state NOT IN ('failed', 'cancelled') OR j.kept = 1) ORDER BY j.row, d.disk_index",
      repository_id);
}

void JobCatalogue::move_image(std::string_view image_id, std::string_view image_path) {
  Stmt(db_, "UPDATE job_disk SET image_path = ? WHERE image_id = ?", image_path, image_id).run();
}

}  // namespace engine
