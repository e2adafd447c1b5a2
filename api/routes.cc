// SPDX-License-Identifier: Apache-2.0
#include "api/routes.h"

namespace api {

std::span<const Route> all_routes() {
  static const std::vector<Route> all = [] {
    std::vector<Route> joined;
    for (const auto* part :
         {&backup_routes(), &point_routes(), &restore_routes(), &verification_routes(),
          &wanted_routes(), &change_id_routes(), &telemetry_routes(), &repository_routes(),
          &vm_context_routes(), &nbd_state_routes(), &event_routes(), &service_routes(),
          &page_routes()}) {
      joined.insert(joined.end(), part->begin(), part->end());
    }
    return joined;
  }();
  return all;
}

}  // namespace api
