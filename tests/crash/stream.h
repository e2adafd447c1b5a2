// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "io/stream.h"
#include "tests/crash/scheduler.h"

namespace crash {

/// A connection between two ends of the simulation: bytes arrive when the seed says so, in pieces
/// of its choice.
std::pair<std::unique_ptr<io::Stream>, std::unique_ptr<io::Stream>> stream_pair(
    Scheduler& scheduler);

}  // namespace crash
