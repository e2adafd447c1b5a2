// SPDX-License-Identifier: Apache-2.0
#include "api/answers_backups.h"

namespace api {
namespace {

struct ShownPoint {
  const engine::Point& point;
  ShownBackup backup;
};

/// The fields of a backup, where those that the image of one disk answers better come from it.
std::vector<Field<ShownPoint>> point_fields() {
  using P = ShownPoint;
  std::vector<Field<P>> fields;
  for (const auto& [name, type, about, value] : backup_object().fields()) {
    if (name == "change_id") continue;
    fields.push_back({name, type, about, [value](const P& p) { return value(p.backup); }});
    if (name == "file_path") fields.back().value = [](const P& p) { return p.point.image_path; };
  }
  fields.push_back({"change_id", "string?", "recorded for this disk",
                    [](const P& p) { return p.point.change_id; }});
  fields.push_back({"parent_backup_id", "string", "empty for the full",
                    [](const P& p) { return p.point.parent_job_id; }});
  fields.push_back({"image_id", "string", "", [](const P& p) { return p.point.image_id; }});
  fields.push_back({"allocated_bytes", "integer", "space of the file",
                    [](const P& p) { return p.point.allocated_bytes; }});
  return fields;
}

const Object<ShownPoint>& point_object() {
  static const Object<ShownPoint> object(
      "ChainPoint", "A published point: the backup, seen from one disk.", point_fields());
  return object;
}

Json points_of(const ShownChain& shown) {
  Json points = Json::array();
  for (const auto& [point, backup] : shown.chain.points) {
    points.push_back(point_object().json({point, {backup, shown.pid}}));
  }
  return points;
}

template <typename Bytes>
uint64_t sum_of(const engine::ChainView& chain, Bytes bytes_of) {
  uint64_t sum = 0;
  for (const engine::ChainPoint& point : chain.points) sum += bytes_of(point);
  return sum;
}

std::string chain_id(const engine::ChainView& chain) {
  if (chain.points.empty()) return "";
  return chain.context_id + "-disk" + std::to_string(chain.disk_index) + "-chain";
}

}  // namespace

const Object<ShownChain>& chain_object() {
  using C = ShownChain;
  using engine::ChainPoint;
  static const Object<C> object(
      "Chain", "One full and the incrementals on it, of one disk.",
      {{"chain_id", "string", "empty when there are no points",
        [](const C& c) { return chain_id(c.chain); }},
       {"vm_context_id", "string", "", [](const C& c) { return c.chain.context_id; }},
       {"vm_name", "string", "", [](const C& c) { return c.chain.vm_name; }},
       {"repository_id", "string", "", [](const C& c) { return c.chain.repository_id; }},
       {"disk_id", "integer", "index", [](const C& c) { return c.chain.disk_index; }},
       {"generation", "integer", "1, 2, …: one per full",
        [](const C& c) { return c.chain.generation; }},
       {"full_backup_id", "string", "",
        [](const C& c) {
          return c.chain.points.empty() ? "" : c.chain.points.front().point.job_id;
        }},
       {"latest_backup_id", "string", "",
        [](const C& c) {
          return c.chain.points.empty() ? "" : c.chain.points.back().point.job_id;
        }},
       {"backups", "[ChainPoint]", "the full first", points_of},
       {"total_size_bytes", "integer", "virtual sizes: sum of the points' total_bytes",
        [](const C& c) {
          return sum_of(c.chain, [](const ChainPoint& p) { return p.backup.job.total_bytes(); });
        }},
       {"backup_count", "integer", "", [](const C& c) { return c.chain.points.size(); }},
       {"allocated_bytes", "integer", "sum of file space", [](const C& c) {
          return sum_of(c.chain, [](const ChainPoint& p) { return p.point.allocated_bytes; });
        }}});
  return object;
}

std::vector<Schema> chain_schemas() { return schemas_of(point_object(), chain_object()); }

namespace {

using History = engine::TelemetryHistory;

const Object<engine::ProgressSample>& sample_object() {
  using S = engine::ProgressSample;
  static const Object<S> object(
      "TelemetrySample", "A backup's progress at one moment.",
      {{"t", "integer", "seconds since start", &S::seconds},
       {"s", "integer", "bytes per second", &S::bytes_per_second},
       {"p", "number", "percent", [](const S& s) { return finite(s.percent); }},
       {"phase", "string", "", &S::phase},
       {"source", "string:client,server", "who measured", &S::source}});
  return object;
}

const Object<engine::BackupView>& current_state_object() {
  using V = engine::BackupView;
  static const Object<V> object(
      "CurrentState", "",
      {{"bytes_transferred", "integer", "", [](const V& v) { return v.job.bytes_received(); }},
       {"total_bytes", "integer", "", [](const V& v) { return v.job.total_bytes(); }},
       {"transfer_speed_bps", "integer", "", &V::transfer_speed_bps},
       {"progress_percent", "number", "", [](const V& v) { return finite(v.progress_percent); }},
       {"current_phase", "string", "", [](const V& v) { return current_phase(v.job); }}});
  return object;
}

const Object<History>& performance_object() {
  static const Object<History> object(
      "PerformanceMetrics", "Over the whole backup.",
      {{"duration_seconds", "integer", "", &History::duration_seconds},
       {"snapshots_recorded", "integer", "", &History::snapshots_recorded},
       {"peak_speed_bps", "integer", "", &History::peak_speed_bps},
       {"avg_speed_bps", "integer", "", &History::avg_speed_bps},
       {"min_speed_bps", "integer", "", &History::min_speed_bps}});
  return object;
}

}  // namespace

const Object<History>& telemetry_history_object() {
  using H = History;
  static const Object<H> object(
      "TelemetryHistory", "",
      {{"job_id", "string", "", [](const H& h) { return h.backup.job.id; }},
       {"status", "string:pending,running,completed,failed,cancelled", "",
        [](const H& h) { return shown_status(h.backup.job.state); }},
       {"data_source", "string:live_snapshots,rolled_up,none", "", &H::source},
       {"current_state", "CurrentState", "",
        [](const H& h) { return current_state_object().json(h.backup); }},
       {"chart_data", "[TelemetrySample]", "oldest first",
        [](const H& h) { return sample_object().list(h.samples); }},
       {"performance_metrics", "PerformanceMetrics", "",
        [](const H& h) { return performance_object().json(h); }}});
  return object;
}

std::vector<Schema> telemetry_history_schemas() {
  return schemas_of(sample_object(), current_state_object(), performance_object(),
                    telemetry_history_object());
}

}  // namespace api
