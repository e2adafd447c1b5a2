// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdexcept>

namespace engine {

/// Another varve works with a catalogue or a repository; the text names its pid.
class InUse : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace engine
