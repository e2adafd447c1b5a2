// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

namespace api {

/// Which of `known` somebody meant who wrote `given`, which is none of them: another spelling
/// ("vmName"), a part of the name ("vm", "name" of vm_name), or a slip of the keys. Nothing when it
/// looks like none of them. Pure.
std::optional<std::string_view> likely_meant(std::string_view given,
                                             const std::vector<std::string_view>& known);

/// How many letters are inserted, left out, replaced or swapped with their neighbour: the optimal
/// string alignment distance. Pure.
size_t slips_between(std::string_view one, std::string_view other);

}  // namespace api
