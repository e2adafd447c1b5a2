// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace io {

/// Lets the process have as many file descriptors as the system allows it: the usual soft limit of
/// 1,024 is less than the connections that a server takes. Ring operations need no select().
void raise_file_limit() noexcept;

}  // namespace io
