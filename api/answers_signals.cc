// SPDX-License-Identifier: Apache-2.0
#include "api/answers_signals.h"

namespace api {
namespace {

using engine::Warning;

const Object<Warning>& flag_object() {
  static const Object<Warning> object(
      "Flag", "Something unusual, which is among the backup's warnings too.",
      {{"flag", "string:encrypted,entropy_jump,wrong_disk,layout_changed", "", &Warning::code},
       {"reason", "string", "", &Warning::message}});
  return object;
}

}  // namespace

const Object<ShownSignals>& signals_object() {
  using S = ShownSignals;
  static const Object<S> object(
      "Signals", "What a backup of a disk looks like; shares are 0 to 1, null when not known.",
      {{"change_share", "number|null", "stored, of the disk's size",
        [](const S& s) { return s.signals.change_share; }},
       {"incompressible_share", "number|null", "of the data received, estimated by samples",
        [](const S& s) { return s.signals.incompressible_share; }},
       {"zero_share", "number|null", "of what was written or zeroed",
        [](const S& s) { return s.signals.zero_share; }},
       {"elided_share", "number|null", "equal to the parent and dropped, of the data received",
        [](const S& s) { return s.signals.elided_share; }},
       {"flags", "[Flag]", "empty when nothing is unusual",
        [](const S& s) { return flag_object().list(s.flags); }}});
  return object;
}

const Object<engine::Point>& point_signals_object() {
  using P = engine::Point;
  static const Object<P> object(
      "PointSignals", "An older point of the disk, to compare with.",
      {{"backup_id", "string", "", &P::job_id},
       {"backup_type", "string:full,incremental,differential", "", &P::type},
       {"completed_at", "time", "", &P::completed_at},
       {"signals", "Signals", "",
        [](const P& p) { return signals_object().json(signals_of_point(p)); }}});
  return object;
}

ShownSignals signals_of_point(const engine::Point& point) {
  return {engine::signals_of(point.counters, point.capacity_bytes),
          engine::flags_of(point.warnings, point.disk_index)};
}

std::vector<Schema> signals_schemas() {
  return schemas_of(flag_object(), signals_object(), point_signals_object());
}

}  // namespace api
