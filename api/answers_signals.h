// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "api/object.h"
#include "engine/values/signals.h"

/// What backups of a disk look like, as JSON: docs/signals.md. Pure.
namespace api {

struct ShownSignals {
  engine::DiskSignals signals;
  std::vector<engine::Warning> flags;  ///< of this disk
};

const Object<ShownSignals>& signals_object();
/// A point's signals, with its backup.
const Object<engine::Point>& point_signals_object();

ShownSignals signals_of_point(const engine::Point& point);

/// The schemas of these objects.
std::vector<Schema> signals_schemas();

}  // namespace api
