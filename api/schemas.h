#pragma once

#include <vector>

#include "api/schema.h"

/// The tables behind api/schema.h, one function per subject.
namespace api {

const std::vector<Schema>& backup_schemas();
const std::vector<Schema>& setup_schemas();
const std::vector<Schema>& state_schemas();

std::vector<Member> backup_members();
std::vector<Member> chain_point_members();

}  // namespace api
