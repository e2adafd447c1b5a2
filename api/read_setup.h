// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "api/json.h"
#include "engine/values/requests.h"

/// Registrations of repositories and VMs, from bodies that passed their schemas. Pure.
/// Spec: docs/http-api.md, "Repositories", "VM contexts".
namespace api {

/// A missing name, type or configuration is refused with its own text.
engine::NewRepository new_repository(const InputJson& body);
/// The same without id and name.
engine::NewRepository repository_to_test(const InputJson& body);

/// Checks all of a registration that needs no catalogue; throws vm_context_invalid.
engine::PutVmContext put_vm_context(const std::string& vm_name, const InputJson& body);

}  // namespace api
