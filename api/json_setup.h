#pragma once

#include <string>

#include "api/json.h"
#include "engine/values/requests.h"
#include "engine/values/views.h"

/// Repositories and VM contexts as JSON, out and in. Pure. Spec: docs/http-api.md.
namespace api {

Json to_json(const engine::StorageInfo& storage);
Json to_json(const engine::StorageAbilities& abilities);
Json to_json(const engine::RepositoryView& view);
Json to_json(const engine::RepositoryTest& test);

/// The members of an object that passed the schema NewRepository or TestRepository; a missing
/// name, type or configuration is refused with its own text.
engine::NewRepository new_repository(const InputJson& body);
/// The same without id and name.
engine::NewRepository repository_to_test(const InputJson& body);

Json to_json(const engine::Vm& vm);
/// With the groups that lists have.
Json listed_json(const engine::Vm& vm);
Json to_json(const engine::VmDisk& disk);
/// The five members of GET /vm-contexts/{vm}/disks.
Json short_json(const engine::VmDisk& disk);
Json to_json(const engine::VmView& view, int64_t pid);

/// Checks all of a registration that needs no catalogue; throws vm_context_invalid.
engine::PutVmContext put_vm_context(const std::string& vm_name, const InputJson& body);

}  // namespace api
