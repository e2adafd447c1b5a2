// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace io {

/// Keeps SIGTERM, SIGINT and SIGHUP for wait_for_signal(), and ignores SIGPIPE. Before any other
/// thread starts.
void block_termination_signals();

/// Blocks the calling thread until one of them comes; returns its number. What SIGHUP means is the
/// caller's: a server reads its configuration again, a command in a terminal ends with it.
int wait_for_signal();

/// The same of a command in a terminal, which dies of SIGPIPE as others do, and which nohup keeps
/// from SIGHUP.
void block_interruption_signals();

}  // namespace io
