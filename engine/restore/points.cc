// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/points.h"

#include <algorithm>
#include <map>

#include "engine/values/export_uri.h"
#include "engine/values/refusal.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

/// What views are made of beside the points. A repository is looked up once.
class Viewer {
 public:
  Viewer(Catalogue& catalogue, const EngineOptions& options, Time now)
      : catalogue_(catalogue), options_(options), now_(now) {}

  PointView view_of(Point point) {
    const std::string name = point_export_name(point);
    const RetentionLock lock = lock_of(point);
    return {std::move(point), name, export_uris(options_, name), lock};
  }

 private:
  RetentionLock lock_of(const Point& point) {
    auto known = repositories_.find(point.repository_id);
    if (known == repositories_.end()) {
      auto found = catalogue_.repositories.find(point.repository_id);
      known = repositories_.emplace(point.repository_id, std::move(found)).first;
    }
    if (!known->second) return {};
    return retention_lock(*known->second, point.completed_at, now_);
  }

  Catalogue& catalogue_;
  const EngineOptions& options_;
  const Time now_;
  std::map<std::string, std::optional<Repository>> repositories_;
};

/// The disks of a VM that a query means. The newest points are those of the VM as it is now; a disk
/// that was removed has its points by their names and times.
std::vector<uint32_t> disks_of(Catalogue& catalogue, const PointQuery& query) {
  if (query.disk_id) return {*query.disk_id};
  std::vector<uint32_t> disks;
  const auto vm = catalogue.vms.find(query.vm_name);
  for (const VmDisk& disk : vm->disks) {
    if (!disk.removed || query.point != kLatestPoint) disks.push_back(disk.index);
  }
  return disks;
}

}  // namespace

std::optional<Point> find_point(PointCatalogue& points, const PointName& name) {
  if (name.point == kLatestPoint) {
    return points.newest_of(name.vm_name, name.disk_index);
  }
  for (Point& point : points.of_job(name.point)) {
    if (point.disk_index == name.disk_index && point.vm_name == name.vm_name) {
      return std::move(point);
    }
  }
  const std::optional<Time> until = from_rfc3339(name.point);
  if (!until) return std::nullopt;
  return points.newest_until(name.vm_name, name.disk_index, *until);
}

std::vector<PointView> point_views(Catalogue& catalogue, const EngineOptions& options, Time now,
                                   const PointQuery& query) {
  Viewer viewer(catalogue, options, now);
  if (!query.vm_name.empty() && !catalogue.vms.find(query.vm_name)) {
    throw refusals::vm_not_found(query.vm_name);
  }
  std::vector<PointView> views;
  if (query.point.empty()) {
    for (Point& point :
         catalogue.points.newest_first(query.vm_name, query.disk_id, query.limit, query.offset)) {
      views.push_back(viewer.view_of(std::move(point)));
    }
    return views;
  }
  if (query.vm_name.empty()) {  // the newest of every disk there is
    for (Point& point : catalogue.points.newest_of_each(query.disk_id, query.limit, query.offset)) {
      views.push_back(viewer.view_of(std::move(point)));
    }
    return views;
  }
  for (const uint32_t disk : disks_of(catalogue, query)) {
    auto point = find_point(catalogue.points, {query.vm_name, disk, query.point});
    if (point) views.push_back(viewer.view_of(std::move(*point)));
  }
  if (views.empty()) throw refusals::point_not_found(query.vm_name, query.disk_id, query.point);
  return views;
}

}  // namespace engine
