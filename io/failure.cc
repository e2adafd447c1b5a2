// SPDX-License-Identifier: Apache-2.0
#include "io/failure.h"

#include <fmt/format.h>

#include <cstdlib>

namespace io {

std::system_error failure(std::string_view verb, std::string_view object, int error) {
  return {std::abs(error), std::generic_category(), fmt::format("{} {}", verb, object)};
}

std::system_error failure(std::string_view verb, std::string_view object, uint64_t offset,
                          uint64_t length, int error) {
  return {std::abs(error), std::generic_category(),
          fmt::format("{} {} @{}+{}", verb, object, offset, length)};
}

}  // namespace io
