// SPDX-License-Identifier: Apache-2.0
#include "nbd/outbox.h"

#include <algorithm>
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
  if (head_bytes_ > 0) pieces.push_back(io::as_iovec(head()));
  if (!body_.empty()) pieces.push_back(io::as_iovec(body_));
  if (!borrowed_.bytes().empty()) pieces.push_back(io::as_iovec(borrowed_.bytes()));
  for (const io::Buffer& buffer : data_) pieces.push_back(io::as_iovec(buffer.bytes()));
}

size_t Message::size() const {
  size_t size = head_bytes_ + body_.size() + borrowed_.bytes().size();
  for (const io::Buffer& buffer : data_) size += buffer.size();
  return size;
}

io::Task<std::span<const std::byte>> FetchedData::next() {
  assert(through_.buffer.size() > 0);
  const auto piece = through_.buffer.bytes().first(
      static_cast<size_t>(std::min<uint64_t>(through_.buffer.size(), left_)));
  if (!piece.empty()) co_await fetch_(offset_, piece);
  offset_ += piece.size();
  left_ -= piece.size();
  co_return piece;
}

void Outbox::push(Message message) noexcept {
  if (failed_) return;
  try {
    ready_.push_back(std::move(message));
  } catch (const std::bad_alloc&) {
    give_up();
  }
  changed_.wake();
}

/// No reply can be sent any more, so there is no use in reading further requests.
void Outbox::give_up() noexcept {
  failed_ = true;
  ready_.clear();
  stream_.abort();
}

void Outbox::finish() {
  finishing_ = true;
  changed_.wake();
}

io::Task<void> Outbox::run() {
  try {
    for (;;) {
      while (ready_.empty() && !finishing_) co_await changed_.wait();
      if (ready_.empty()) break;
      take_batch();
      co_await send_batch();
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

void Outbox::take_batch() {
  assert(batch_.empty() && "replies leave in the order of push(), batch after batch");
  for (size_t bytes = 0; !ready_.empty() && bytes < kPartBytes; ready_.pop_front()) {
    bytes += ready_.front().size();
    batch_.push_back(std::move(ready_.front()));
    if (batch_.back().fetched()) bytes = kPartBytes;
  }
}

io::Task<void> Outbox::send_batch() {
  assert(!batch_.empty());
  pieces_.clear();
  for (const Message& message : batch_) message.gather(pieces_);
  co_await send_all(pieces_);
  FetchedData* const fetched = batch_.back().fetched();
  while (fetched) {
    const std::span<const std::byte> bytes = co_await fetched->next();
    if (bytes.empty()) break;
    const iovec piece = io::as_iovec(bytes);
    co_await send_all({&piece, 1});
  }
}

io::Task<void> Outbox::send_all(std::span<const iovec> pieces) {
  while (!pieces.empty()) {
    size_t count = 0, bytes = 0;
    while (count < pieces.size() && bytes < kPartBytes) bytes += pieces[count++].iov_len;
    assert(!sending_ && "one coroutine does all sending");
    sending_ = true;
    co_await stream_.send(pieces.first(count));
    sending_ = false;
    sent_ += bytes;
    pieces = pieces.subspan(count);
  }
}

}  // namespace nbd
