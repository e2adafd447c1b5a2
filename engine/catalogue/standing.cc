// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/standing.h"

#include <fmt/format.h>

namespace engine {
namespace {

/// The jobs of image ?1 and of what lies on it.
constexpr std::string_view kFromImageUp =
    "(SELECT d.job_id FROM point lower JOIN point p ON p.chain_id = lower.chain_id "
    "AND p.position >= lower.position JOIN job_disk d ON d.image_id = p.image_id "
    "WHERE lower.image_id = ?1)";

/// Down each chain from the job's points: a chain is short, and what is damaged may be many.
constexpr std::string_view kStandsOnDamage =
    "EXISTS (SELECT 1 FROM job_disk d CROSS JOIN point p ON p.image_id = d.image_id "
    "CROSS JOIN point lower ON lower.chain_id = p.chain_id AND lower.position <= p.position "
    "CROSS JOIN verification v ON v.image_id = lower.image_id AND v.result = 'damaged' "
    "WHERE d.job_id = job.id)";

}  // namespace

void note_proof(Db& db, std::string_view image_id, bool was_damaged, bool is_damaged) {
  Stmt(db,
       "UPDATE job SET proven = NOT EXISTS (SELECT 1 FROM job_disk d WHERE d.job_id = job.id "
       "AND NOT EXISTS (SELECT 1 FROM verification v WHERE v.image_id = d.image_id "
       "AND v.result = 'sound')) WHERE id = (SELECT job_id FROM job_disk WHERE image_id = ?1)",
       image_id)
      .run();
  if (was_damaged == is_damaged) return;
  const std::string_view distrusted = is_damaged ? "1" : kStandsOnDamage;
  Stmt(db, fmt::format("UPDATE job SET distrusted = {} WHERE id IN {}", distrusted, kFromImageUp),
       image_id)
      .run();
}

void note_point(Db& db, std::string_view job_id, std::string_view chain_id) {
  Stmt(db,
       "UPDATE job SET distrusted = 1 WHERE id = ?1 AND EXISTS (SELECT 1 FROM point p "
       "CROSS JOIN verification v ON v.image_id = p.image_id AND v.result = 'damaged' "
       "WHERE p.chain_id = ?2)",
       job_id, chain_id)
      .run();
}

}  // namespace engine
