// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <stdexcept>

#include "engine/catalogue/jobs.h"
#include "engine/values/refusal.h"

/// How a job leaves the catalogue: docs/jobs.md, "Deletion".
namespace engine {
namespace {

void erase_points(Db& db, const std::string& job_id, Time now) {
  Stmt chains(db,
              "SELECT p.chain_id FROM point p JOIN job_disk d ON d.image_id = p.image_id "
              "WHERE d.job_id = ?",
              job_id);
  const std::vector<std::string> chain_ids = chains.all<std::string>();
  Stmt(db, "DELETE FROM point WHERE image_id IN (SELECT image_id FROM job_disk WHERE job_id = ?)",
       job_id)
      .run();
  for (const std::string& id : chain_ids) {
    Stmt(db, "UPDATE chain SET updated_at = ? WHERE id = ?", now, id).run();
    Stmt(db,
         "DELETE FROM chain WHERE id = ?1 AND NOT EXISTS "
         "(SELECT 1 FROM point WHERE chain_id = ?1)",
         id)
        .run();
  }
}

}  // namespace

std::vector<std::string> JobCatalogue::dependents(const std::string& job_id) {
  // A child always has the higher row: it began when its parent was published.
  Stmt select(db_,
              "WITH RECURSIVE dependent (id) AS (SELECT ?1 UNION "
              "  SELECT child.job_id FROM dependent "
              "  JOIN job_disk parent ON parent.job_id = dependent.id "
              "  JOIN job_disk child ON child.parent_image_id = parent.image_id "
              "  JOIN job ON job.id = child.job_id AND job.state NOT IN ('failed', 'cancelled')) "
              "SELECT job.id FROM dependent JOIN job ON job.id = dependent.id "
              "WHERE job.id <> ?1 ORDER BY job.row DESC",
              job_id);
  return select.all<std::string>();
}

void JobCatalogue::mark_deleting(const std::vector<std::string>& job_ids) {
  Tx tx(db_);
  for (const std::string& id : job_ids) {
    Stmt update(db_,
                "UPDATE job SET deleting = 1 WHERE id = ? AND state IN "
                "('completed', 'failed', 'cancelled')",
                id);
    if (update.run() == 0) throw std::logic_error("delete job " + id + ": it has not ended");
  }
  tx.commit();
}

void JobCatalogue::erase(const std::string& job_id, Time now) {
  Tx tx(db_);
  const Job job = get(job_id);
  if (!job.deleting) throw std::logic_error("erase job " + job_id + ": it is not marked");
  erase_points(db_, job_id, now);
  Stmt(db_, "DELETE FROM job WHERE id = ?", job_id).run();
  Stmt(db_,
       "UPDATE backup_context SET updated_at = ?3, "
       "(last_backup_id, last_backup_type, last_backup_at) = "
       "(SELECT coalesce(max(newest.id), ''), coalesce(max(newest.type), ''), "
       "   max(newest.completed_at) FROM "
       "   (SELECT id, type, completed_at FROM job WHERE context_id = ?1 AND repository_id = ?2 "
       "    AND state = 'completed' ORDER BY completed_at DESC, row DESC LIMIT 1) newest) "
       "WHERE context_id = ?1 AND repository_id = ?2",
       job.context_id, job.repository_id, now)
      .run();
  tx.commit();
}

}  // namespace engine
