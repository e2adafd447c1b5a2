// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "io/buffer.h"
#include "io/task.h"

namespace nbd {

/// The buffers that one direction of a connection holds, within the budget of all (X5).
///
/// Invariant: who holds none gets one at once, over the budget if need be; for more it waits its
/// turn, or until it holds none again. So clients that have stalled, with all of the budget in
/// their replies, stop no others, and each has at most one piece beyond the budget. A piece of a
/// reply is held until it has been sent. Belongs to the thread of the pool.
class BufferShare {
 public:
  explicit BufferShare(io::BufferPool& pool) : pool_(pool) {}
  ~BufferShare() { assert(held_ == 0 && waiting_ == 0 && "a share outlives its pieces"); }

  /// As long as it lives, its piece is held.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      std::swap(of_, other.of_);
      return *this;
    }
    ~Hold() {
      if (of_) of_->give_up();
    }

   private:
    friend class BufferShare;
    explicit Hold(BufferShare& of) : of_(&of) {}
    BufferShare* of_ = nullptr;
  };

  struct Piece {
    Hold hold;  // given up after the buffer, which may then serve whoever waits
    io::Buffer buffer;
  };

  /// A buffer for `size` bytes of the disk at `offset`.
  io::Task<Piece> acquire(size_t size, uint64_t offset);

 private:
  void give_up();

  io::BufferPool& pool_;
  uint32_t held_ = 0;
  uint32_t waiting_ = 0;
};

}  // namespace nbd
