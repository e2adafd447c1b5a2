#include "nbd/reply_queue.h"

#include <cassert>
#include <cstring>
#include <new>

#include "io/log.h"

namespace nbd {
namespace {

/// What one send is given: it shows progress to the watch over slow readers, and a batch of short
/// messages ends there.
constexpr size_t kPartBytes = 1 << 20;

}  // namespace

void Message::append(std::span<const std::byte> part) {
  assert(head_bytes_ + part.size() <= kHeadBytes);
  std::memcpy(head_.data() + head_bytes_, part.data(), part.size());
  head_bytes_ += part.size();
}

void Message::gather(std::vector<iovec>& pieces) const {
  pieces.push_back(io::as_iovec(std::span(head_).first(head_bytes_)));
  if (!body_.empty()) pieces.push_back(io::as_iovec(body_));
  if (!borrowed_.bytes().empty()) pieces.push_back(io::as_iovec(borrowed_.bytes()));
  for (const io::Buffer& buffer : data_) pieces.push_back(io::as_iovec(buffer.bytes()));
}

size_t Message::size() const {
  size_t size = head_bytes_ + body_.size() + borrowed_.bytes().size();
  for (const io::Buffer& buffer : data_) size += buffer.size();
  return size;
}

void ReplyQueue::push(Message message) noexcept {
  if (failed_) return;
  try {
    ready_.push_back(std::move(message));
  } catch (const std::bad_alloc&) {
    give_up();
  }
  changed_.wake();
}

/// Nobody can be answered here any more: reading on would be in vain.
void ReplyQueue::give_up() noexcept {
  failed_ = true;
  ready_.clear();
  stream_.abort();
}

void ReplyQueue::finish() {
  finishing_ = true;
  changed_.wake();
}

io::Task<void> ReplyQueue::run() {
  std::vector<iovec> pieces;
  try {
    for (;;) {
      while (ready_.empty() && !finishing_) co_await changed_.wait();
      if (ready_.empty()) break;
      take_batch();
      for (const Message& message : batch_) message.gather(pieces);
      sending_ = true;
      co_await send_all(pieces);
      sending_ = false;
      pieces.clear();
      batch_.clear();
    }
    co_await stream_.finish_sending();
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::debug, "nbd: {}", failure.what());
    sending_ = false;
    batch_.clear();
    give_up();
  }
}

void ReplyQueue::take_batch() {
  for (size_t bytes = 0; !ready_.empty() && bytes < kPartBytes; ready_.pop_front()) {
    bytes += ready_.front().size();
    batch_.push_back(std::move(ready_.front()));
  }
}

io::Task<void> ReplyQueue::send_all(std::span<const iovec> pieces) {
  while (!pieces.empty()) {
    size_t count = 0, bytes = 0;
    while (count < pieces.size() && bytes < kPartBytes) bytes += pieces[count++].iov_len;
    co_await stream_.send(pieces.first(count));
    sent_ += bytes;
    pieces = pieces.subspan(count);
  }
}

}  // namespace nbd
