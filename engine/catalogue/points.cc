// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/points.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "engine/catalogue/tables.h"
#include "engine/values/names.h"

namespace engine {
namespace {

/// `rest` continues a WHERE.
template <typename... Values>
std::vector<Point> select_points(Db& db, std::string_view rest, const Values&... values) {
  return select_rows(db, kPointColumns,
                     fmt::format("FROM point p JOIN job_disk d ON d.image_id = p.image_id "
                                 "JOIN job j ON j.id = d.job_id WHERE j.deleting = 0 {}",
                                 rest),
                     values...);
}

/// Of each disk in each repository the image at the end of its newest chain, whatever the clock
/// said when it was made. `rest` continues a WHERE about job k and disk e.
std::string last_of_chains(std::string_view rest) {
  return fmt::format(
      "SELECT image_id FROM (SELECT n.image_id, row_number() OVER ("
      "PARTITION BY k.context_id, k.repository_id, e.disk_index "
      "ORDER BY e.generation DESC, n.position DESC) AS age "
      "FROM point n JOIN job_disk e ON e.image_id = n.image_id JOIN job k ON k.id = e.job_id "
      "WHERE k.deleting = 0 {}) WHERE age = 1",
      rest);
}

}  // namespace

std::optional<Point> PointCatalogue::newest(std::string_view context_id,
                                            std::string_view repository_id, uint32_t disk_index) {
  return first_of(select_points(db_,
                                "AND j.context_id = ? AND j.repository_id = ? AND d.disk_index = ? "
                                "ORDER BY d.generation DESC, p.position DESC LIMIT 1",
                                context_id, repository_id, disk_index));
}

bool PointCatalogue::any(std::string_view context_id, std::string_view repository_id) {
  return !select_points(db_, "AND j.context_id = ? AND j.repository_id = ? LIMIT 1", context_id,
                        repository_id)
              .empty();
}

std::optional<Point> PointCatalogue::find(std::string_view image_id) {
  return first_of(select_points(db_, "AND p.image_id = ?", image_id));
}

std::vector<Point> PointCatalogue::of_job(std::string_view job_id) {
  return select_points(db_, "AND j.id = ? ORDER BY d.disk_index", job_id);
}

std::vector<Point> PointCatalogue::list(std::string_view repository_id) {
  return select_points(
      db_,
      "AND (?1 = '' OR j.repository_id = ?1) "
      "ORDER BY j.vm_name, j.repository_id, d.disk_index, d.generation, p.position",
      repository_id);
}

std::vector<Point> PointCatalogue::unproven_since(Time until) {
  return select_points(db_,
                       "AND NOT EXISTS (SELECT 1 FROM verification v "
                       "WHERE v.image_id = d.image_id AND v.verified_at > ?) "
                       "ORDER BY (SELECT v.verified_at FROM verification v "
                       "WHERE v.image_id = d.image_id) NULLS FIRST, j.completed_at, "
                       "j.vm_name, d.disk_index, p.position",
                       until);
}

std::map<std::string, uint64_t> PointCatalogue::count_by_verification() {
  std::map<std::string, uint64_t> counts = {
      {"never", 0}, {"sound", 0}, {"damaged", 0}, {"without_manifest", 0}};
  // Each proof is of a point, and most are sound: the others are counted, by their index, and then
  // the few points that are being deleted.
  Stmt all(db_, "SELECT (SELECT count(*) FROM point), (SELECT count(*) FROM verification)");
  all.step();
  const auto points = all.take<uint64_t>();
  const auto proofs = all.take<uint64_t>();
  counts["never"] = points - proofs;
  counts["sound"] = proofs;
  Stmt rest(db_,
            "SELECT result, count(*) FROM verification "
            "WHERE result IN ('damaged', 'without_manifest') GROUP BY result");
  while (rest.step()) {
    const auto result = rest.take<std::string>();
    counts[result] = rest.take<uint64_t>();
    counts["sound"] -= counts[result];
  }
  Stmt deleting(db_,
                "SELECT coalesce(v.result, 'never') AS verification, count(*) FROM job j "
                "CROSS JOIN job_disk d ON d.job_id = j.id "
                "CROSS JOIN point p ON p.image_id = d.image_id "
                "LEFT JOIN verification v ON v.image_id = p.image_id "
                "WHERE j.deleting = 1 GROUP BY verification");
  while (deleting.step()) {
    const auto verification = deleting.take<std::string>();
    counts[verification] -= deleting.take<uint64_t>();
  }
  return counts;
}

std::vector<ChainLength> PointCatalogue::chain_lengths() {
  static constexpr auto kColumns = columns<ChainLength>(
      derived("vm.vm_name", &ChainLength::vm_name),
      derived("c.repository_id", &ChainLength::repository_id),
      derived("c.disk_index", &ChainLength::disk_index),
      derived("(SELECT max(p.position) + 1 FROM point p WHERE p.chain_id = c.id) AS images",
              &ChainLength::images));
  return select_rows(db_, kColumns,
                     "FROM chain c JOIN vm ON vm.context_id = c.context_id "
                     "WHERE images IS NOT NULL AND c.generation = (SELECT max(o.generation) "
                     "FROM chain o WHERE o.context_id = c.context_id "
                     "AND o.repository_id = c.repository_id AND o.disk_index = c.disk_index) "
                     "ORDER BY vm.vm_name, c.repository_id, c.disk_index");
}

std::vector<Chain> PointCatalogue::chains(std::string_view context_id,
                                          std::string_view repository_id, uint32_t disk_index) {
  const std::vector<Point> points =
      select_points(db_,
                    "AND j.context_id = ? AND j.repository_id = ? AND d.disk_index = ? "
                    "ORDER BY d.generation, p.position",
                    context_id, repository_id, disk_index);
  std::vector<Chain> chains;
  for (const Point& point : points) {
    if (chains.empty() || chains.back().generation != point.place.generation) {
      Chain chain;
      chain.id = chain_name(context_id, disk_index, repository_id, point.place.generation);
      chain.context_id = context_id;
      chain.vm_name = point.vm_name;
      chain.repository_id = repository_id;
      chain.disk_index = disk_index;
      chain.generation = point.place.generation;
      chain.created_at = point.completed_at;
      chains.push_back(std::move(chain));
    }
    chains.back().updated_at = point.completed_at;
    chains.back().points.push_back(point);
  }
  return chains;
}

std::optional<Chain> PointCatalogue::chain(std::string_view context_id,
                                           std::string_view repository_id, uint32_t disk_index,
                                           std::optional<uint32_t> generation) {
  std::vector<Chain> all = chains(context_id, repository_id, disk_index);
  if (all.empty()) return std::nullopt;
  if (!generation) return std::move(all.back());
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const Chain& chain) { return chain.generation == *generation; });
  if (found == all.end()) return std::nullopt;
  return std::move(*found);
}

std::string PointCatalogue::newest_repository(std::string_view context_id) {
  const std::vector<Point> found = select_points(
      db_, "AND j.context_id = ? ORDER BY j.completed_at DESC, j.row DESC LIMIT 1", context_id);
  return found.empty() ? std::string() : found.front().repository_id;
}

std::optional<Point> PointCatalogue::newest_of(std::string_view vm_name, uint32_t disk_index) {
  return first_of(
      select_points(db_,
                    fmt::format("AND p.image_id IN ({}) ORDER BY j.completed_at DESC, j.row DESC "
                                "LIMIT 1",
                                last_of_chains("AND k.vm_name = ?1 AND e.disk_index = ?2")),
                    vm_name, disk_index));
}

std::optional<Point> PointCatalogue::newest_until(std::string_view vm_name, uint32_t disk_index,
                                                  Time until) {
  return first_of(select_points(db_,
                                "AND j.vm_name = ?1 AND d.disk_index = ?2 "
                                "AND j.completed_at <= ?3 "
                                "ORDER BY j.completed_at DESC, j.row DESC LIMIT 1",
                                vm_name, disk_index, until));
}

std::vector<Point> PointCatalogue::newest_first(std::string_view vm_name,
                                                std::optional<uint32_t> disk_index, uint64_t limit,
                                                uint64_t offset) {
  // By its context, for which there is an index.
  const std::string_view of_vm =
      vm_name.empty() ? "?1 = ''"
                      : "j.context_id IN (SELECT context_id FROM vm WHERE vm_name = ?1)";
  return select_points(
      db_,
      fmt::format("AND {} AND (?2 IS NULL OR d.disk_index = ?2) "
                  "ORDER BY j.completed_at DESC, j.row DESC, d.disk_index LIMIT ?3 OFFSET ?4",
                  of_vm),
      vm_name, disk_index, static_cast<int64_t>(limit), static_cast<int64_t>(offset));
}

std::vector<Point> PointCatalogue::newest_of_each(std::optional<uint32_t> disk_index,
                                                  uint64_t limit, uint64_t offset) {
  // Of each repository the last of the chain, of these the newest.
  constexpr std::string_view kNotRemoved =
      "AND (?1 IS NULL OR e.disk_index = ?1) AND NOT EXISTS (SELECT 1 FROM vm_disk r "
      "WHERE r.context_id = k.context_id AND r.disk_index = e.disk_index AND r.removed = 1)";
  return select_points(
      db_,
      fmt::format("AND p.image_id IN (SELECT image_id FROM (SELECT l.image_id, row_number() OVER ("
                  "PARTITION BY m.context_id, f.disk_index "
                  "ORDER BY m.completed_at DESC, m.row DESC) AS place FROM ({}) l "
                  "JOIN job_disk f ON f.image_id = l.image_id JOIN job m ON m.id = f.job_id) "
                  "WHERE place = 1) "
                  "ORDER BY j.completed_at DESC, j.row DESC, d.disk_index LIMIT ?2 OFFSET ?3",
                  last_of_chains(kNotRemoved)),
      disk_index, static_cast<int64_t>(limit), static_cast<int64_t>(offset));
}

std::vector<Point> PointCatalogue::history(std::string_view context_id,
                                           std::string_view repository_id, uint32_t disk_index,
                                           std::string_view before, size_t count_max) {
  return select_points(db_,
                       "AND j.context_id = ?1 AND j.repository_id = ?2 AND d.disk_index = ?3 "
                       "AND (?4 = '' OR j.row < (SELECT b.row FROM job b WHERE b.id = ?4)) "
                       "ORDER BY d.generation DESC, p.position DESC LIMIT ?5",
                       context_id, repository_id, disk_index, before,
                       static_cast<int64_t>(count_max));
}

std::vector<Point> PointCatalogue::lineage(const Point& point) {
  return select_points(db_,
                       "AND j.context_id = ? AND j.repository_id = ? AND d.disk_index = ? "
                       "AND d.generation = ? AND p.position <= ? ORDER BY p.position DESC",
                       point.context_id, point.repository_id, point.disk_index,
                       point.place.generation, point.place.position);
}

std::vector<Point> PointCatalogue::after(std::string_view vm_name, uint32_t disk_index,
                                         std::string_view job_id, size_t count_max) {
  return select_points(db_,
                       "AND (j.vm_name, d.disk_index, j.id) > (?, ?, ?) "
                       "ORDER BY j.vm_name, d.disk_index, j.id LIMIT ?",
                       vm_name, disk_index, job_id, static_cast<int64_t>(count_max));
}

ChainPlace PointCatalogue::place(std::string_view context_id, std::string_view repository_id,
                                 uint32_t disk_index, std::string_view parent_image_id) {
  if (!parent_image_id.empty()) {
    const std::optional<Point> parent = find(parent_image_id);
    if (!parent) {
      throw std::logic_error(fmt::format("parent image {} is not published", parent_image_id));
    }
    return {parent->place.generation, parent->place.position + 1};
  }
  Stmt newest(db_,
              "SELECT coalesce(max(generation), 0) + 1 FROM chain WHERE context_id = ? "
              "AND repository_id = ? AND disk_index = ?",
              context_id, repository_id, disk_index);
  return {newest.first<uint32_t>().value(), 0};
}

std::vector<NewestChangeId> PointCatalogue::change_ids(std::string_view context_id,
                                                       std::string_view repository_id) {
  const std::vector<Point> points =
      select_points(db_,
                    "AND j.context_id = ?1 AND (?2 = '' OR j.repository_id = ?2) "
                    "ORDER BY d.disk_index, j.completed_at DESC, j.row DESC",
                    context_id, repository_id);
  std::vector<NewestChangeId> newest;
  for (const Point& point : points) {
    if (!change_id_is_usable(point.change_id)) continue;
    if (!newest.empty() && newest.back().index == point.disk_index) continue;
    newest.push_back({point.disk_index, point.disk_key, point.change_id, point.job_id});
  }
  return newest;
}

}  // namespace engine
