#include "engine/catalogue/points.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "engine/values/names.h"

namespace engine {
namespace {

constexpr std::string_view kPoints =
    "SELECT d.image_id, d.image_path, j.id, j.context_id, j.vm_name, j.repository_id, "
    "d.disk_index, d.disk_key, d.generation, p.position, d.type, d.capacity_bytes, d.change_id, "
    "d.parent_image_id, d.parent_job_id, d.file_bytes, d.allocated_bytes, d.bytes_stored, "
    "j.created_at, j.completed_at "
    "FROM point p JOIN job_disk d ON d.image_id = p.image_id JOIN job j ON j.id = d.job_id "
    "WHERE j.deleting = 0 ";

Point take_point(Stmt& row) {
  Point point;
  for (std::string* text : {&point.image_id, &point.image_path, &point.job_id, &point.context_id,
                            &point.vm_name, &point.repository_id}) {
    *text = row.take<std::string>();
  }
  for (uint32_t* number :
       {&point.disk_index, &point.disk_key, &point.generation, &point.position}) {
    *number = row.take<uint32_t>();
  }
  point.type = from_text<BackupType>(row.take<std::string>()).value();
  point.capacity_bytes = row.take<uint64_t>();
  for (std::string* text : {&point.change_id, &point.parent_image_id, &point.parent_job_id}) {
    *text = row.take<std::string>();
  }
  for (uint64_t* number : {&point.file_bytes, &point.allocated_bytes, &point.bytes_stored}) {
    *number = row.take<uint64_t>();
  }
  point.created_at = row.take<Time>();
  point.completed_at = row.take<Time>();
  return point;
}

}  // namespace

std::vector<Point> PointCatalogue::select(std::string_view rest,
                                          const std::vector<std::string>& values) {
  std::vector<Point> points;
  Stmt select(db_, fmt::format("{} {}", kPoints, rest));
  for (const std::string& value : values) select.bind(value);
  while (select.step()) points.push_back(take_point(select));
  return points;
}

std::optional<Point> PointCatalogue::newest(std::string_view context_id,
                                            std::string_view repository_id, uint32_t disk_index) {
  std::vector<Point> found =
      select(fmt::format("AND j.context_id = ? AND j.repository_id = ? AND d.disk_index = {} "
                         "ORDER BY d.generation DESC, p.position DESC LIMIT 1",
                         disk_index),
             {std::string(context_id), std::string(repository_id)});
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

bool PointCatalogue::any(std::string_view context_id, std::string_view repository_id) {
  return !select("AND j.context_id = ? AND j.repository_id = ? LIMIT 1",
                 {std::string(context_id), std::string(repository_id)})
              .empty();
}

std::optional<Point> PointCatalogue::find(std::string_view image_id) {
  std::vector<Point> found = select("AND p.image_id = ?", {std::string(image_id)});
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::vector<Point> PointCatalogue::of_job(std::string_view job_id) {
  return select("AND j.id = ? ORDER BY d.disk_index", {std::string(job_id)});
}

std::vector<Point> PointCatalogue::list(std::string_view repository_id) {
  return select(
      "AND (?1 = '' OR j.repository_id = ?1) "
      "ORDER BY j.vm_name, j.repository_id, d.disk_index, d.generation, p.position",
      {std::string(repository_id)});
}

std::vector<Chain> PointCatalogue::chains(std::string_view context_id,
                                          std::string_view repository_id, uint32_t disk_index) {
  const std::vector<Point> points =
      select(fmt::format("AND j.context_id = ? AND j.repository_id = ? AND d.disk_index = {} "
                         "ORDER BY d.generation, p.position",
                         disk_index),
             {std::string(context_id), std::string(repository_id)});
  std::vector<Chain> chains;
  for (const Point& point : points) {
    if (chains.empty() || chains.back().generation != point.generation) {
      Chain chain;
      chain.id = chain_name(context_id, disk_index, repository_id, point.generation);
      chain.context_id = context_id;
      chain.vm_name = point.vm_name;
      chain.repository_id = repository_id;
      chain.disk_index = disk_index;
      chain.generation = point.generation;
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
  std::vector<Point> found =
      select("AND j.context_id = ? ORDER BY j.completed_at DESC, j.row DESC LIMIT 1",
             {std::string(context_id)});
  return found.empty() ? std::string() : found.front().repository_id;
}

ChainPlace PointCatalogue::place(std::string_view context_id, std::string_view repository_id,
                                 uint32_t disk_index, std::string_view parent_image_id) {
  if (!parent_image_id.empty()) {
    const std::optional<Point> parent = find(parent_image_id);
    if (!parent) {
      throw std::logic_error(fmt::format("parent image {} is not published", parent_image_id));
    }
    return {parent->generation, parent->position + 1};
  }
  Stmt newest(db_,
              "SELECT coalesce(max(generation), 0) + 1 FROM chain WHERE context_id = ? "
              "AND repository_id = ? AND disk_index = ?",
              context_id, repository_id, disk_index);
  newest.step();
  return {newest.take<uint32_t>(), 0};
}

std::vector<PublishedChangeId> PointCatalogue::change_ids(std::string_view context_id,
                                                          std::string_view repository_id) {
  const std::vector<Point> points = select(
      "AND j.context_id = ?1 AND (?2 = '' OR j.repository_id = ?2) "
      "ORDER BY d.disk_index, j.completed_at DESC, j.row DESC",
      {std::string(context_id), std::string(repository_id)});
  std::vector<PublishedChangeId> newest;
  for (const Point& point : points) {
    if (!change_id_is_usable(point.change_id)) continue;
    if (!newest.empty() && newest.back().disk_index == point.disk_index) continue;
    newest.push_back({point.disk_index, point.disk_key, point.change_id, point.job_id});
  }
  return newest;
}

}  // namespace engine
