// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "api/schema.h"

/// The parts of all_schemas(): what clients send, and each subject's answers, whose schemas are
/// made of the tables that write them (api/object.h).
namespace api {

std::vector<Schema> request_schemas();
std::vector<Schema> problem_schemas();
std::vector<Schema> backup_answers();
std::vector<Schema> point_answers();
std::vector<Schema> restore_answers();
std::vector<Schema> verification_answers();
std::vector<Schema> wanted_answers();
std::vector<Schema> change_id_answers();
std::vector<Schema> telemetry_answers();
std::vector<Schema> repository_answers();
std::vector<Schema> vm_context_answers();
std::vector<Schema> nbd_state_answers();
std::vector<Schema> service_answers();

}  // namespace api
