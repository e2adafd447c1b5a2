// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

/// A PUT of a VM replaces all that is registered of it; these say again what the API's answers say.
/// Credentials and the expected interval stay as they are when they are left out. Any thread.
namespace app {

/// A "VmDisk" as a "NewVmDisk".
nlohmann::json registered_again(const nlohmann::json& disk);

/// The members of a "VmContext" that "PutVmContext" has, without disks.
nlohmann::json context_again(const nlohmann::json& context);

}  // namespace app
