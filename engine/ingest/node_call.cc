// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "engine/ingest/node_client.h"

namespace engine {

std::string node_call_body(const NodeCall& call) {
  const nlohmann::ordered_json body = {
      {"job_id", call.job_id},
      {"vm_name", call.vm_name},
      {"vm_path", call.vm_path},
      {"vcenter_host", call.vcenter_host},
      {"vcenter_user", call.vcenter_user},
      {"vcenter_password", call.vcenter_password},
      {"nbd_targets", call.nbd_targets},
      {"backup_type", call.backup_type},
      {"previous_change_id", call.previous_change_id},
      {"nbd_host", call.nbd_host},
  };
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace engine
