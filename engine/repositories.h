// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// The repositories: registered, tested, measured. Control thread.
namespace engine {

/// Repository "1", whose directory the command line gives.
void ensure_first_repository(Core& core);

io::Task<RepositoryView> create_repository(Core& core, NewRepository request);
std::vector<RepositoryView> list_repositories(Core& core, const RepositoryFilter& filter);
RepositoryView find_repository(Core& core, const std::string& id);
void delete_repository(Core& core, const std::string& id);

io::Task<StorageInfo> measure_repository(Core& core, std::string id);
io::Task<RepositoryTest> test_repository(Core& core, NewRepository request);
io::Task<RepositoryTest> test_repository(Core& core, std::string id);
io::Task<StorageRefresh> refresh_storage(Core& core);

}  // namespace engine
