// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace io {

/// True when all of a range of the file lies in the page cache: a copy from there is twice as fast
/// as a good disk. False also when the kernel cannot say (before Linux 6.5, or a file that is
/// neither ours nor writable). A look, no promise: pages may go at any time. Never waits.
bool is_in_page_cache(int fd, uint64_t offset, uint64_t length);

}  // namespace io
