// SPDX-License-Identifier: Apache-2.0
#include "io/stream.h"

#include <cerrno>

#include "io/failure.h"

namespace io {

Task<bool> receive_exactly(Stream& stream, std::span<std::byte> into) {
  bool started = false;
  while (!into.empty()) {
    const iovec rest = as_iovec(into);
    const size_t count = co_await stream.receive({&rest, 1});
    if (count == 0) {
      if (!started) co_return false;
      throw failure("receive from", stream.peer(), ECONNRESET);
    }
    started = true;
    into = into.subspan(count);
  }
  co_return true;
}

}  // namespace io
