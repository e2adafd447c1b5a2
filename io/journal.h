// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "io/log.h"

/// The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, fields
/// and all. Small and stable, so libsystemd is not needed for it.
namespace io {

/// Whether standard error leads to the journal: $JOURNAL_STREAM names the file that it is.
bool stderr_is_journal();

/// An entry with MESSAGE, PRIORITY and what `fields` know; `text` is one line.
std::string journal_entry(LogLevel level, const LogFields& fields, std::string_view text);

/// False when the journal has not taken it.
bool send_to_journal(std::string_view entry) noexcept;

}  // namespace io
