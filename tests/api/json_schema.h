// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace api_tests {

/// Where `value` breaks `schema`, in words; "" where it does not. Knows what our own documents use
/// of JSON Schema, and takes every object as closed: a member that the schema does not list is a
/// fault too. `document` resolves $ref.
std::string schema_fault(const nlohmann::json& value, const nlohmann::json& schema,
                         const nlohmann::json& document, const std::string& where = "$");

}  // namespace api_tests
