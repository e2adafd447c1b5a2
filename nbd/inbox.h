// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/stream.h"
#include "io/task.h"
#include "nbd/protocol.h"

namespace nbd {

/// Reads a stream in messages: a header is buffered here, a payload goes where the caller wants it,
/// and what arrives after it in the same call is kept for the next message.
///
/// Invariant: a receive never waits for more than the message that was asked for. Belongs to the
/// stream's thread; one call at a time.
class Inbox {
 public:
  static constexpr size_t kBufferBytes = 4096;

  explicit Inbox(io::Stream& stream) : stream_(&stream) {}
  /// Continues with bytes that were read ahead elsewhere, at most kBufferBytes.
  Inbox(io::Stream& stream, std::span<const std::byte> read_ahead);

  /// Waits until `count` bytes lie at the front, at most kBufferBytes; up to `ahead_max` may be
  /// taken from the stream after them. False when the stream ends before the first byte; throws
  /// ECONNRESET when it ends inside.
  io::Task<bool> fill(size_t count, size_t ahead_max);
  bool has(size_t count) const { return end_ - begin_ >= count; }

  /// The front bytes, which fill() has brought; valid until the next call.
  template <size_t kCount>
  std::span<const std::byte, kCount> take() {
    assert(has(kCount) && "fill() first");
    begin_ += kCount;
    return std::span<const std::byte, kCount>(buffer_.data() + begin_ - kCount, kCount);
  }

  /// Fills `into`, and takes up to `ahead_max` bytes that follow it when they have arrived too.
  /// Throws ECONNRESET when the stream ends before.
  io::Task<void> receive(std::span<std::byte> into, size_t ahead_max);

  /// Reads and forgets `count` bytes; throws as receive().
  io::Task<void> discard(uint64_t count);

  /// Reads and forgets all until the stream ends or fails.
  io::Task<void> discard_until_end();

  /// Bytes that were read ahead and not taken.
  std::span<const std::byte> ahead() const { return {buffer_.data() + begin_, end_ - begin_}; }

  /// Bytes received so far: a watch over progress compares two readings.
  uint64_t received() const { return received_; }
  /// True while a receive waits for the rest of a message that has begun.
  bool waits_inside_message() const { return waits_inside_message_; }

 private:
  io::Task<size_t> receive_some(std::span<const iovec> into, bool inside_message);
  [[noreturn]] void throw_ended() const;
  size_t take_ahead(std::span<std::byte> into);

  io::Stream* stream_;
  std::array<std::byte, kBufferBytes> buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t received_ = 0;
  bool waits_inside_message_ = false;
};

}  // namespace nbd
