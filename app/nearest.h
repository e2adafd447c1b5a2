// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace app {

/// What somebody who typed `word` has probably meant: the one of `known` with the fewest letters
/// inserted, left out, exchanged or swapped with their neighbour; "" when none is near. Pure.
std::string nearest(std::string_view word, std::span<const std::string> known);

/// "; did you mean 'backup'?", or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> known);

}  // namespace app
