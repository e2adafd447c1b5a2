// SPDX-License-Identifier: Apache-2.0
#include "nbd/inbox.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include "io/failure.h"

namespace nbd {

Inbox::Inbox(io::Stream& stream, std::span<const std::byte> read_ahead) : stream_(&stream) {
  assert(read_ahead.size() <= kBufferBytes);
  if (!read_ahead.empty()) std::memcpy(buffer_.data(), read_ahead.data(), read_ahead.size());
  end_ = read_ahead.size();
}

void Inbox::throw_ended() const { throw io::failure("receive from", stream_->peer(), ECONNRESET); }

io::Task<size_t> Inbox::receive_some(std::span<const iovec> into, bool inside_message) {
  struct Waiting {
    bool& flag;
    ~Waiting() { flag = false; }
  };
  assert(!waits_inside_message_ && "one receive at a time");
  waits_inside_message_ = inside_message;
  const Waiting waiting{waits_inside_message_};
  const size_t count = co_await stream_->receive(into);
  received_ += count;
  co_return count;
}

io::Task<bool> Inbox::fill(size_t count, size_t ahead_max) {
  assert(count <= kBufferBytes);
  if (begin_ + std::max(count, ahead_max) > kBufferBytes) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  const size_t target = std::min(begin_ + std::max(count, ahead_max), kBufferBytes);
  assert(begin_ <= end_ && begin_ + count <= target && "the buffer has room for what is asked");
  while (end_ - begin_ < count) {
    const iovec room{buffer_.data() + end_, target - end_};
    const size_t got = co_await receive_some({&room, 1}, begin_ != end_);
    if (got == 0) {
      if (begin_ == end_) co_return false;
      throw_ended();
    }
    end_ += got;
    assert(end_ <= target && "no more than was asked for is taken");
  }
  co_return true;
}

size_t Inbox::take_ahead(std::span<std::byte> into) {
  const size_t count = std::min(into.size(), end_ - begin_);
  if (count > 0) std::memcpy(into.data(), buffer_.data() + begin_, count);
  begin_ += count;
  return count;
}

io::Task<void> Inbox::receive(std::span<std::byte> into, size_t ahead_max) {
  into = into.subspan(take_ahead(into));
  while (!into.empty()) {
    // Nothing is buffered here: all of the buffer is free for what follows.
    assert(begin_ == end_);
    begin_ = end_ = 0;
    const std::array<iovec, 2> room = {iovec{into.data(), into.size()},
                                       iovec{buffer_.data(), std::min(ahead_max, kBufferBytes)}};
    const std::span<const iovec> parts(room.data(), ahead_max > 0 ? 2 : 1);
    const size_t got = co_await receive_some(parts, true);
    if (got == 0) throw_ended();
    const size_t taken = std::min(got, into.size());
    end_ = got - taken;
    assert(end_ <= ahead_max && end_ <= kBufferBytes);
    into = into.subspan(taken);
  }
}

io::Task<void> Inbox::discard(uint64_t count) {
  const size_t buffered = static_cast<size_t>(std::min<uint64_t>(count, end_ - begin_));
  begin_ += buffered;
  count -= buffered;
  if (count == 0) co_return;
  constexpr size_t kScratchBytes = 64 << 10;
  Bytes scratch(static_cast<size_t>(std::min<uint64_t>(count, kScratchBytes)));
  while (count > 0) {
    const std::span<std::byte> part =
        std::span(scratch).first(static_cast<size_t>(std::min<uint64_t>(count, scratch.size())));
    co_await receive(part, 0);
    count -= part.size();
  }
}

io::Task<void> Inbox::discard_until_end() try {
  begin_ = end_ = 0;
  for (;;) {
    const iovec room{buffer_.data(), kBufferBytes};
    if (co_await receive_some({&room, 1}, false) == 0) co_return;
  }
} catch (const std::system_error&) {
  co_return;  // the peer has gone; that is an end as well
}

}  // namespace nbd
