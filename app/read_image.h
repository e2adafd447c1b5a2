// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "app/options.h"
#include "engine/care/second_reader.h"
#include "io/ring.h"

/// `varve read-image IMAGE`, which only `varve serve` runs: the process in which libqcow reads.
namespace app {

/// False in a varve that was built without it; run_read_image() of commands.h throws there.
bool has_libqcow();

/// Processes of this very program, for the threads of these rings, which outlive it. Null without
/// libqcow.
std::unique_ptr<engine::ReaderProcesses> make_reader_processes(std::vector<io::Ring*> rings);

}  // namespace app
