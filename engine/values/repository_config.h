// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "engine/values/types.h"

/// The `config` object of a repository: which members its type has, and where the images go.
/// Pure: whether the directory exists is asked elsewhere. Spec: docs/http-api.md, "Repositories".
namespace engine {

struct RepositoryConfig {
  std::string json;       ///< the type's members and no others, without password_secret
  std::string directory;  ///< absolute: `path`, or `mount_point` of a network type
};

/// Throws refusals::repository_config_invalid, naming the member.
RepositoryConfig check_repository_config(RepositoryType type, std::string_view config_json);

}  // namespace engine
