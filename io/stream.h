// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "io/task.h"

namespace io {

/// A connected byte stream: a socket, TLS over one, or the simulation's.
///
/// At most one receive and one send under way at once. Failures throw std::system_error. Belongs
/// to one executor thread.
class Stream {
 public:
  virtual ~Stream() = default;

  /// Fills the front of `into`, taken as one range, with what has arrived; waits for at least one
  /// byte. Returns the count, 0 at the peer's end of stream.
  virtual Task<size_t> receive(std::span<const iovec> into) = 0;

  /// Sends all of `from`. More than IOV_MAX pieces are allowed.
  virtual Task<void> send(std::span<const iovec> from) = 0;

  /// Says that nothing more will be sent; receiving continues.
  virtual Task<void> finish_sending() = 0;

  /// Ends both directions at once: receives and sends under way return or fail. Does not wait.
  virtual void abort() noexcept = 0;

  /// True when a receive would find bytes, or the end of the stream, without waiting.
  virtual bool has_arrived() const = 0;

  /// For logs: "127.0.0.1:51234", "unix".
  virtual std::string peer() const = 0;
};

/// Fills all of `into`. False when the stream ends before the first byte; throws ECONNRESET when it
/// ends inside.
Task<bool> receive_exactly(Stream& stream, std::span<std::byte> into);

inline iovec as_iovec(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace io
