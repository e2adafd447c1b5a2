// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/catalogue/catalogue.h"
#include "engine/values/options.h"
#include "engine/values/point_name.h"
#include "engine/values/requests.h"
#include "engine/values/views.h"

/// Which points there are. On the catalogue's thread.
namespace engine {

/// The point that a name stands for: of the backup of that id, the newest, or the newest that was
/// completed until then.
std::optional<Point> find_point(PointCatalogue& points, const PointName& name);

/// Newest first. Throws vm_not_found, point_not_found.
std::vector<PointView> point_views(Catalogue& catalogue, const EngineOptions& options, Time now,
                                   const PointQuery& query);

}  // namespace engine
