// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <system_error>

namespace io {

/// "open /backup/disk0.qcow2: Permission denied". `error` is an errno, or its negative as the
/// kernel returns it.
std::system_error failure(std::string_view verb, std::string_view object, int error);

/// "write /backup/disk0.qcow2 @65536+4096: No space left on device" (byte offset + length).
std::system_error failure(std::string_view verb, std::string_view object, uint64_t offset,
                          uint64_t length, int error);

}  // namespace io
