#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace api {

/// Which of `known` somebody meant who wrote `given`, which is none of them: another spelling
/// ("vmName"), a part of the name ("vm", "name" of vm_name), or a slip of the keys. Nothing when it
/// looks like none of them. Pure.
std::optional<std::string_view> likely_meant(std::string_view given,
                                             const std::vector<std::string_view>& known);

}  // namespace api
