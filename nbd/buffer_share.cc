// SPDX-License-Identifier: Apache-2.0
#include "nbd/buffer_share.h"

namespace nbd {

io::Task<BufferShare::Piece> BufferShare::acquire(size_t size, uint64_t offset) {
  const uint64_t phase = offset % io::BufferPool::kPage;
  io::Buffer buffer = pool_.try_acquire(size, phase);
  bool holds = false;
  if (buffer.size() != size && held_ > 0) {
    ++waiting_;
    buffer = co_await pool_.acquire(size, phase, this);
    --waiting_;
    holds = buffer.size() != size;  // withdrawn: give_up() has counted this piece
  }
  if (buffer.size() != size) buffer = pool_.acquire_over_budget(size, phase);
  if (!holds) ++held_;
  assert(held_ > 0 && buffer.size() == size);
  co_return Piece{Hold(*this), std::move(buffer)};
}

void BufferShare::give_up() {
  assert(held_ > 0 && "a piece is given up once");
  if (--held_ == 0 && waiting_ > 0 && pool_.withdraw(this)) ++held_;
}

}  // namespace nbd
