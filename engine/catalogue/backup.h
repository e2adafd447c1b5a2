// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "io/runtime.h"
#include "io/task.h"

namespace engine {

/// Copies the catalogue as it is at one moment, beside a server that uses it: SQLite's VACUUM INTO
/// on a connection of its own, which holds up no writer. The copy is one file without a log, with
/// mode 0600; it has been checked (PRAGMA integrity_check) and is durable when it appears under
/// `target`, all of it or nothing. An existing `target` is replaced when `replace`, else EEXIST as
/// std::system_error; DbError for a catalogue that cannot be read. Paths are absolute. Blocks the
/// thread; not on a ring that serves.
io::Task<void> backup_catalogue(io::Runtime runtime, std::string catalogue, std::string target,
                                bool replace);

}  // namespace engine
