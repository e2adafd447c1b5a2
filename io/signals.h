#pragma once

#include <chrono>

namespace io {

/// Keeps SIGTERM, SIGINT and SIGHUP for wait_for_termination(), and ignores SIGPIPE. Before any
/// other thread starts.
void block_termination_signals();

/// Blocks the calling thread until one of them comes; returns its number.
int wait_for_termination();

/// Blocks for `patience` at most; whether one of them has come.
bool termination_comes_within(std::chrono::milliseconds patience);

}  // namespace io
