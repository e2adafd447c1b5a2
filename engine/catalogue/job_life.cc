// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "engine/catalogue/jobs.h"
#include "engine/catalogue/standing.h"
#include "engine/catalogue/tables.h"
#include "engine/values/names.h"

/// What happens to a job between its first row and its end: docs/jobs.md, "States".
namespace engine {
namespace {

[[noreturn]] void misuse(const char* verb, const std::string& job_id, std::string_view state) {
  throw std::logic_error(fmt::format("{} job {}: it is {}", verb, job_id, state));
}

void write_decision(Db& db, const Job& job, const DiskDecision& decision) {
  Stmt update(db,
              "UPDATE job_disk SET generation = ?, position = ?, sidecar = ? "
              "WHERE job_id = ? AND disk_index = ? AND sidecar = ''",
              decision.place.generation, decision.place.position, decision.sidecar, job.id,
              decision.disk_index);
  if (update.run() == 0) misuse("decide", job.id, "decided twice for one disk");
}

}  // namespace

void JobCatalogue::set_ports(const std::string& job_id, const std::string& nbd_targets,
                             const std::vector<std::pair<uint32_t, uint16_t>>& port_by_index) {
  Tx tx(db_);
  Stmt(db_, "UPDATE job SET nbd_targets = ? WHERE id = ?", nbd_targets, job_id).run();
  for (const auto& [index, port] : port_by_index) {
    Stmt(db_, "UPDATE job_disk SET port = ? WHERE job_id = ? AND disk_index = ?", port, job_id,
         index)
        .run();
  }
  tx.commit();
}

void JobCatalogue::set_running(const std::string& job_id, Time now) {
  write(db_, Durability::durable,
        "UPDATE job SET state = 'running', started_at = ? WHERE id = ? AND state = 'preparing'",
        now, job_id);
}

void JobCatalogue::set_transferring(const std::string& job_id, uint32_t disk_index) {
  write(db_, Durability::lazy,
        "UPDATE job_disk SET ever_connected = 1, "
        "state = CASE state WHEN 'pending' THEN 'transferring' ELSE state END "
        "WHERE job_id = ? AND disk_index = ?",
        job_id, disk_index);
}

void JobCatalogue::set_sealing(const std::string& job_id, uint32_t disk_index) {
  const int64_t changed =
      write(db_, Durability::lazy,
            "UPDATE job_disk SET state = 'sealing' WHERE job_id = ? AND disk_index = ? "
            "AND state IN ('pending', 'transferring', 'sealing')",
            job_id, disk_index);
  if (changed == 0) misuse("seal disk of", job_id, "not transferring");
}

void JobCatalogue::set_sealed(const std::string& job_id, uint32_t disk_index,
                              const SealRecord& record, Time now) {
  Tx tx(db_);
  static constexpr auto kSealed = columns<SealRecord>(
      col("change_id", &SealRecord::change_id), nested(&SealRecord::counters, kDiskCounters),
      col("file_bytes", &SealRecord::file_bytes),
      col("allocated_bytes", &SealRecord::allocated_bytes),
      col("sums_sha256", &SealRecord::sums_sha256), col("parent_root", &SealRecord::parent_root));
  Stmt update(db_,
              fmt::format("UPDATE job_disk SET state = 'sealed', {}, completed_at = ? "
                          "WHERE job_id = ? AND disk_index = ? AND state = 'sealing'",
                          kSealed.assignments()),
              kSealed.values(record), now, job_id, disk_index);
  if (update.run() == 0) misuse("seal disk of", job_id, "not sealing");
  append_warnings(job_id, record.warnings);
  tx.commit();
}

void JobCatalogue::set_counters(const std::string& job_id, uint32_t disk_index,
                                const DiskCounters& counters) {
  Tx tx(db_, Durability::lazy);
  update_row(db_, "job_disk", kDiskCounters, counters, "job_id = ? AND disk_index = ?", job_id,
             disk_index);
  tx.commit();
}

void JobCatalogue::set_handed_out(const std::string& job_id, uint32_t disk_index,
                                  const std::string& change_id) {
  write(db_, Durability::lazy,
        "UPDATE job_disk SET handed_out_change_id = ? WHERE job_id = ? AND disk_index = ?",
        change_id, job_id, disk_index);
}

void JobCatalogue::append_warnings(const std::string& job_id, const std::vector<Warning>& added) {
  if (added.empty()) return;
  std::vector<Warning> warnings = get(job_id).warnings;
  warnings.insert(warnings.end(), added.begin(), added.end());
  Stmt(db_, "UPDATE job SET warnings = ? WHERE id = ?", warnings, job_id).run();
}

// ---------------------------------------------------------------- the decision and the publish

void JobCatalogue::decide(const std::string& job_id, const std::vector<DiskDecision>& disks,
                          Time now) {
  Tx tx(db_);
  const Job job = get(job_id);
  if (job.state != JobState::running && job.state != JobState::preparing) {
    misuse("decide", job_id, to_text(job.state));
  }
  const bool all_sealed = std::all_of(job.disks.begin(), job.disks.end(), [](const JobDisk& disk) {
    return disk.state == DiskState::sealed;
  });
  if (!all_sealed || disks.size() != job.disks.size()) misuse("decide", job_id, "not all sealed");
  for (const DiskDecision& decision : disks) write_decision(db_, job, decision);
  Stmt(db_,
       "UPDATE job SET state = 'finalizing', decided_at = ?1, "
       "started_at = coalesce(started_at, created_at) WHERE id = ?2",
       now, job_id)
      .run();
  tx.commit();
}

std::vector<DecidedImage> JobCatalogue::decided_images(const std::string& job_id) {
  static constexpr auto kColumns = columns<DecidedImage>(
      col("disk_index", &DecidedImage::disk_index), col("image_path", &DecidedImage::image_path),
      col("sidecar", &DecidedImage::sidecar));
  return select_rows(db_, kColumns,
                     "FROM job_disk WHERE job_id = ? AND sidecar <> '' ORDER BY disk_index",
                     job_id);
}

void JobCatalogue::set_publish_trouble(const std::string& job_id, const std::string& cause) {
  write(db_, Durability::lazy,
        "UPDATE job SET error_message = ? WHERE id = ? AND state = 'finalizing'", cause, job_id);
}

void JobCatalogue::publish(const std::string& job_id) {
  Tx tx(db_);
  const Job job = get(job_id);
  if (job.state != JobState::finalizing) misuse("publish", job_id, to_text(job.state));
  const Time decided_at = job.decided_at.value();
  for (const JobDisk& disk : job.disks) publish_disk(job, disk, decided_at);
  Stmt(db_,
       "UPDATE job SET state = 'completed', completed_at = decided_at, nbd_targets = '', "
       "error_message = '' "
       "WHERE id = ?",
       job_id)
      .run();
  count_success(job, decided_at);
  tx.commit();
}

void JobCatalogue::count_success(const Job& job, Time now) {
  Stmt(db_,
       "UPDATE backup_context SET successful_backups = successful_backups + 1, "
       "last_backup_id = ?1, last_backup_type = ?2, last_backup_at = ?3, updated_at = ?3 "
       "WHERE context_id = ?4 AND repository_id = ?5",
       job.id, job.type, now, job.context_id, job.repository_id)
      .run();
}

/// False when no row had to go: the job is new.
bool JobCatalogue::make_way_for(const Job& job) {
  for (const JobDisk& disk : job.disks) {
    Stmt owner(db_,
               "SELECT k.id FROM job k JOIN job_disk d ON d.job_id = k.id "
               "WHERE d.image_id = ? AND k.id <> ? AND k.state <> 'completed'",
               disk.image_id, job.id);
    const auto kept_by = owner.first<std::string>();
    if (!kept_by) continue;
    clear_kept(*kept_by);
    disown_images(*kept_by);
  }
  const std::optional<Job> older = find(job.id);
  if (!older) return false;
  Stmt(db_,
       "DELETE FROM used_name WHERE name = ?1 "
       "OR name IN (SELECT export_name FROM job_disk WHERE job_id = ?1)",
       job.id)
      .run();
  Stmt(db_, "DELETE FROM job WHERE id = ? AND state <> 'completed'", job.id).run();
  Stmt(db_,
       "UPDATE backup_context SET failed_backups = failed_backups - ? "
       "WHERE context_id = ? AND repository_id = ?",
       older->state == JobState::failed ? 1 : 0, older->context_id, older->repository_id)
      .run();
  return true;
}

void JobCatalogue::adopt(Job job) {
  const bool is_new = !make_way_for(job);
  if (is_new) count_start(job);
  insert_rows(job);
  for (const JobDisk& disk : job.disks) publish_disk(job, disk, job.completed_at.value());
  count_success(job, job.completed_at.value());
}

void JobCatalogue::publish_disk(const Job& job, const JobDisk& disk, Time now) {
  const std::string chain_id =
      chain_name(job.context_id, disk.index, job.repository_id, disk.place.generation);
  if (disk.place.position == 0) {
    Stmt(db_,
         "INSERT INTO chain (id, context_id, repository_id, disk_index, generation, created_at, "
         "updated_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
         chain_id, job.context_id, job.repository_id, disk.index, disk.place.generation, now, now)
        .run();
  } else {
    Stmt below(db_, "SELECT 1 FROM point WHERE image_id = ? AND chain_id = ? AND position = ?",
               disk.parent_image_id, chain_id, disk.place.position - 1);
    if (!below.step()) misuse("publish", job.id, "not on the newest point of its chain");
    Stmt(db_, "UPDATE chain SET updated_at = ? WHERE id = ?", now, chain_id).run();
  }
  std::optional<std::string> parent;
  if (disk.place.position > 0) parent = disk.parent_image_id;
  Stmt(db_, "INSERT INTO point (image_id, chain_id, position, parent_image_id) VALUES (?, ?, ?, ?)",
       disk.image_id, chain_id, disk.place.position, parent)
      .run();
  note_point(db_, job.id, chain_id);
  Stmt(db_, "UPDATE job_disk SET state = 'completed', sidecar = '', port = 0 WHERE id = ?", disk.id)
      .run();
}

void JobCatalogue::end(const std::string& job_id, JobState state, const std::string& cause,
                       Time now, bool kept) {
  Tx tx(db_);
  const Job job = get(job_id);
  if (!is_active(job.state)) return;
  Stmt(db_,
       "UPDATE job SET state = ?, error_message = ?, completed_at = ?, decided_at = NULL, "
       "nbd_targets = '', kept = ? WHERE id = ?",
       state, cause, now, kept, job_id)
      .run();
  Stmt(db_,
       "UPDATE job_disk SET error_message = CASE state WHEN 'sealed' THEN '' ELSE ?1 END, "
       "state = 'failed', completed_at = coalesce(completed_at, ?2), sidecar = '', port = 0 "
       "WHERE job_id = ?3",
       cause, now, job_id)
      .run();
  Stmt(db_,
       "UPDATE backup_context SET failed_backups = failed_backups + ?, updated_at = ? "
       "WHERE context_id = ? AND repository_id = ?",
       state == JobState::failed ? 1 : 0, now, job.context_id, job.repository_id)
      .run();
  tx.commit();
}

void JobCatalogue::set_telemetry(const std::string& job_id, const Telemetry& report, Time now) {
  write(db_, Durability::lazy,
        "UPDATE job SET current_phase = coalesce(nullif(?, ''), current_phase), "
        "bytes_transferred = coalesce(nullif(?, 0), bytes_transferred), "
        "total_bytes = coalesce(nullif(?, 0), total_bytes), "
        "transfer_speed_bps = coalesce(nullif(?, 0), transfer_speed_bps), "
        "eta_seconds = coalesce(nullif(?, 0), eta_seconds), "
        "progress_percent = coalesce(nullif(?, 0.0), progress_percent), last_telemetry_at = ? "
        "WHERE id = ? AND state IN ('preparing', 'running', 'finalizing')",
        report.current_phase, report.bytes_transferred, report.total_bytes,
        report.transfer_speed_bps, report.eta_seconds, report.progress_percent, now, job_id);
}

}  // namespace engine
