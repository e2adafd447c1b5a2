#include "engine/catalogue/jobs.h"

#include <fmt/format.h>

#include <stdexcept>

#include "engine/values/json_text.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"

/// Rows in, rows out: how a job gets into the catalogue, and how jobs are found there again.
/// What happens to a job in between: catalogue_life.cc; how it goes: catalogue_deletion.cc.
namespace engine {
namespace {

constexpr std::string_view kActive = "('preparing', 'running', 'finalizing')";

constexpr std::string_view kJobColumns =
    "id, context_id, vm_name, repository_id, policy_id, vm_path, vcenter_host, vmware_vm_id, type, "
    "state, tags, nbd_targets, error_message, created_at, started_at, completed_at, decided_at, "
    "current_phase, bytes_transferred, total_bytes, transfer_speed_bps, eta_seconds, "
    "progress_percent, last_telemetry_at, warnings, deleting";

constexpr std::string_view kDiskColumns =
    "id, job_id, disk_index, disk_key, capacity_bytes, unit_number, vmdk_path, datastore, state, "
    "type, image_id, image_path, parent_image_id, parent_job_id, parent_change_id, "
    "handed_out_change_id, change_id, export_name, port, bytes_received, bytes_zeroed, "
    "bytes_elided, bytes_stored, covered_bytes, sampled_zero_requests, sampled_zero_bytes, "
    "ever_connected, file_bytes, allocated_bytes, generation, position, error_message, "
    "created_at, completed_at, image_uuid";

Job take_job(Stmt& row) {
  Job job;
  for (std::string* text : {&job.id, &job.context_id, &job.vm_name, &job.repository_id,
                            &job.policy_id, &job.vm_path, &job.vcenter_host, &job.vmware_vm_id}) {
    *text = row.take<std::string>();
  }
  job.type = from_text<BackupType>(row.take<std::string>()).value();
  job.state = from_text<JobState>(row.take<std::string>()).value();
  job.tags = tags_from_json(row.take<std::string>());
  job.nbd_targets = row.take<std::string>();
  job.error_message = row.take<std::string>();
  job.created_at = row.take<Time>();
  job.started_at = row.take<std::optional<Time>>();
  job.completed_at = row.take<std::optional<Time>>();
  job.decided_at = row.take<std::optional<Time>>();
  job.telemetry.current_phase = row.take<std::string>();
  job.telemetry.bytes_transferred = row.take<uint64_t>();
  job.telemetry.total_bytes = row.take<uint64_t>();
  job.telemetry.transfer_speed_bps = row.take<uint64_t>();
  job.telemetry.eta_seconds = row.take<uint64_t>();
  job.telemetry.progress_percent = row.take<double>();
  job.telemetry.last_at = row.take<std::optional<Time>>();
  job.warnings = warnings_from_json(row.take<std::string>());
  job.deleting = row.take<bool>();
  return job;
}

JobDisk take_disk(Stmt& row) {
  JobDisk disk;
  disk.id = row.take<int64_t>();
  disk.job_id = row.take<std::string>();
  disk.index = row.take<uint32_t>();
  disk.key = row.take<uint32_t>();
  disk.capacity_bytes = row.take<uint64_t>();
  disk.unit_number = row.take<std::optional<int64_t>>();
  disk.vmdk_path = row.take<std::string>();
  disk.datastore = row.take<std::string>();
  disk.state = from_text<DiskState>(row.take<std::string>()).value();
  disk.type = from_text<BackupType>(row.take<std::string>()).value();
  for (std::string* text :
       {&disk.image_id, &disk.image_path, &disk.parent_image_id, &disk.parent_job_id,
        &disk.parent_change_id, &disk.handed_out_change_id, &disk.change_id, &disk.export_name}) {
    *text = row.take<std::string>();
  }
  disk.port = row.take<uint16_t>();
  DiskCounters& counters = disk.counters;
  for (uint64_t* count : {&counters.bytes_received, &counters.bytes_zeroed, &counters.bytes_elided,
                          &counters.bytes_stored, &counters.covered_bytes,
                          &counters.sampled_zero_requests, &counters.sampled_zero_bytes}) {
    *count = row.take<uint64_t>();
  }
  disk.ever_connected = row.take<bool>();
  disk.file_bytes = row.take<uint64_t>();
  disk.allocated_bytes = row.take<uint64_t>();
  disk.generation = row.take<uint32_t>();
  disk.position = row.take<uint32_t>();
  disk.error_message = row.take<std::string>();
  disk.created_at = row.take<Time>();
  disk.completed_at = row.take<std::optional<Time>>();
  disk.image_uuid = row.take<std::string>();
  return disk;
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
  give_names(job, repository_directory, name_secret);
  count_start(job);
  insert_rows(job);
  tx.commit();
  return job;
}

bool JobCatalogue::is_used(const std::string& name) {
  return Stmt(db_, "SELECT 1 FROM used_name WHERE name = ?", name).step();
}

void JobCatalogue::give_names(Job& job, const std::string& repository_directory,
                              const std::string& name_secret) {
  Stmt select(db_, "SELECT safe_name FROM vm WHERE context_id = ?", job.context_id);
  if (!select.step()) throw std::logic_error("insert job: no VM context " + job.context_id);
  const std::string safe = select.take<std::string>();
  for (uint32_t attempt = 1;; ++attempt) {
    job.id = job_name(safe, job.created_at, attempt);
    bool is_free = !is_used(job.id);
    for (JobDisk& disk : job.disks) {
      disk.job_id = job.id;
      disk.created_at = job.created_at;
      disk.export_name = name_secret.empty()
                             ? export_name(safe, job.created_at, attempt, disk.index)
                             : export_name(safe, job.created_at, attempt, disk.index, name_secret);
      disk.image_id = image_name(safe, job.created_at, attempt, disk.index);
      disk.image_path = disk_directory(repository_directory, job.context_id, disk.index) + '/' +
                        image_file_name(disk.image_id);
      is_free = is_free && !is_used(disk.export_name) && !is_used(disk.image_id);
    }
    if (is_free) return;
  }
}

void JobCatalogue::count_start(const Job& job) {
  Stmt update(db_,
              "UPDATE backup_context SET total_backups_run = total_backups_run + 1, updated_at = ? "
              "WHERE context_id = ? AND repository_id = ?",
              job.created_at, job.context_id, job.repository_id);
  if (update.run() > 0) return;
  Stmt select(db_, "SELECT safe_name FROM vm WHERE context_id = ?", job.context_id);
  select.step();
  const std::string safe = select.take<std::string>();
  std::string id;
  for (uint32_t attempt = 1;; ++attempt) {
    id = backup_context_name(safe, job.created_at, attempt);
    if (!Stmt(db_, "SELECT 1 FROM backup_context WHERE id = ?", id).step()) break;
  }
  Stmt(db_,
       "INSERT INTO backup_context (id, context_id, repository_id, total_backups_run, created_at, "
       "updated_at) VALUES (?, ?, ?, 1, ?, ?)",
       id, job.context_id, job.repository_id, job.created_at, job.created_at)
      .run();
}

void JobCatalogue::insert_rows(Job& job) {
  Stmt(db_,
       "INSERT INTO job (id, context_id, repository_id, vm_name, vm_path, vcenter_host, "
       "vmware_vm_id, policy_id, type, state, tags, warnings, nbd_targets, error_message, "
       "created_at, started_at, completed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
       "?, ?, ?)",
       job.id, job.context_id, job.repository_id, job.vm_name, job.vm_path, job.vcenter_host,
       job.vmware_vm_id, job.policy_id, job.type, job.state, to_json(job.tags),
       to_json(job.warnings), job.nbd_targets, job.error_message, job.created_at, job.started_at,
       job.completed_at)
      .run();
  Stmt(db_, "INSERT INTO used_name (name) VALUES (?)", job.id).run();
  for (JobDisk& disk : job.disks) insert_disk(disk);
}

void JobCatalogue::insert_disk(JobDisk& disk) {
  Stmt(db_,
       "INSERT INTO job_disk (job_id, disk_index, disk_key, capacity_bytes, unit_number, "
       "vmdk_path, datastore, state, type, image_id, image_path, parent_image_id, parent_job_id, "
       "parent_change_id, change_id, export_name, port, bytes_stored, file_bytes, "
       "allocated_bytes, generation, position, created_at, completed_at, image_uuid) VALUES (?, ?, "
       "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
       disk.job_id, disk.index, disk.key, disk.capacity_bytes, disk.unit_number, disk.vmdk_path,
       disk.datastore, disk.state, disk.type, disk.image_id, disk.image_path, disk.parent_image_id,
       disk.parent_job_id, disk.parent_change_id, disk.change_id, disk.export_name, disk.port,
       disk.counters.bytes_stored, disk.file_bytes, disk.allocated_bytes, disk.generation,
       disk.position, disk.created_at, disk.completed_at, disk.image_uuid)
      .run();
  disk.id = db_.last_insert_id();
  Stmt(db_, "INSERT INTO used_name (name) VALUES (?), (?)", disk.export_name, disk.image_id).run();
}

// ---------------------------------------------------------------- out

std::vector<Job> JobCatalogue::select(std::string_view rest,
                                      const std::vector<std::string>& values) {
  std::vector<Job> jobs;
  Stmt select(db_, fmt::format("SELECT {} FROM job {}", kJobColumns, rest));
  for (const std::string& value : values) select.bind(value);
  while (select.step()) jobs.push_back(take_job(select));
  for (Job& job : jobs) job.disks = disks_of(job.id);
  return jobs;
}

std::vector<JobDisk> JobCatalogue::disks_of(const std::string& job_id) {
  std::vector<JobDisk> disks;
  Stmt select(
      db_,
      fmt::format("SELECT {} FROM job_disk WHERE job_id = ? ORDER BY disk_index", kDiskColumns),
      job_id);
  while (select.step()) disks.push_back(take_disk(select));
  return disks;
}

std::optional<Job> JobCatalogue::find(std::string_view job_id) {
  std::vector<Job> found = select("WHERE id = ?", {std::string(job_id)});
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

Job JobCatalogue::get(const std::string& job_id) {
  std::optional<Job> job = find(job_id);
  if (!job) throw std::logic_error("no job " + job_id);
  return std::move(*job);
}

std::optional<Job> JobCatalogue::active_job(std::string_view context_id) {
  std::vector<Job> found = select(fmt::format("WHERE context_id = ? AND state IN {}", kActive),
                                  {std::string(context_id)});
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::vector<Job> JobCatalogue::active_jobs() {
  return select(fmt::format("WHERE state IN {} ORDER BY row", kActive));
}

JobPage JobCatalogue::list(const BackupFilter& filter) {
  static constexpr std::string_view kMatching =
      "WHERE deleting = 0 "
      "AND (?1 = '' OR context_id IN (SELECT context_id FROM vm WHERE vm_name = ?1) "
      "  OR (context_id IN (SELECT context_id FROM vm WHERE inventory_name = ?1) "
      "    AND NOT EXISTS (SELECT 1 FROM vm WHERE vm_name = ?1))) "
      "AND (?2 = '' OR context_id = ?2) AND (?3 = '' OR repository_id = ?3) "
      "AND (?4 = '' OR ?4 = CASE state WHEN 'preparing' THEN 'pending' "
      "  WHEN 'finalizing' THEN 'running' ELSE state END) "
      "AND (?5 = '' OR type = ?5)";
  const std::vector<std::string> values = {
      filter.vm_name, filter.vm_context_id, filter.repository_id,
      std::string(filter.status ? to_text(*filter.status) : std::string_view()),
      std::string(filter.backup_type ? to_text(*filter.backup_type) : std::string_view())};
  Stmt count(db_, fmt::format("SELECT count(*) FROM job {}", kMatching));
  for (const std::string& value : values) count.bind(value);
  count.step();
  JobPage page;
  page.total = count.take<uint64_t>();
  // SQLite reads a negative limit as none, so that larger numbers may be cut.
  const auto bounded = [](uint64_t number) { return std::min<uint64_t>(number, INT64_MAX); };
  page.jobs = select(fmt::format("{} ORDER BY created_at DESC, row DESC LIMIT {} OFFSET {}",
                                 kMatching, bounded(filter.limit), bounded(filter.offset)),
                     values);
  return page;
}

JobTotals JobCatalogue::totals(std::string_view context_id, std::string_view repository_id) {
  Stmt select(db_,
              "SELECT count(DISTINCT j.id), coalesce(sum(d.bytes_received), 0), "
              "max(j.completed_at) FROM job j JOIN job_disk d ON d.job_id = j.id "
              "WHERE j.context_id = ? AND j.repository_id = ? AND j.state = 'completed' "
              "AND j.deleting = 0",
              context_id, repository_id);
  select.step();
  JobTotals totals;
  totals.backup_count = select.take<uint64_t>();
  totals.total_size_bytes = select.take<uint64_t>();
  totals.last_backup_at = select.take<std::optional<Time>>();
  return totals;
}

std::map<JobState, uint64_t> JobCatalogue::count_by_state() {
  std::map<JobState, uint64_t> counts;
  Stmt select(db_, "SELECT state, count(*) FROM job WHERE deleting = 0 GROUP BY state");
  while (select.step()) {
    const auto state = from_text<JobState>(select.take<std::string>()).value();
    counts[state] = select.take<uint64_t>();
  }
  return counts;
}

std::vector<KnownImage> JobCatalogue::known_images(std::string_view repository_id) {
  std::vector<KnownImage> images;
  Stmt select(db_,
              "SELECT j.id, d.image_id, d.image_path, j.state, j.deleting FROM job j "
              "JOIN job_disk d ON d.job_id = j.id WHERE j.repository_id = ? "
              "AND j.state NOT IN ('failed', 'cancelled') ORDER BY j.row, d.disk_index",
              repository_id);
  while (select.step()) {
    KnownImage image;
    image.job_id = select.take<std::string>();
    image.image_id = select.take<std::string>();
    image.image_path = select.take<std::string>();
    image.job_state = from_text<JobState>(select.take<std::string>()).value();
    image.deleting = select.take<bool>();
    images.push_back(std::move(image));
  }
  return images;
}

void JobCatalogue::move_image(std::string_view image_id, std::string_view image_path) {
  Stmt(db_, "UPDATE job_disk SET image_path = ? WHERE image_id = ?", image_path, image_id).run();
}

}  // namespace engine
