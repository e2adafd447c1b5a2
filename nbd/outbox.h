// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "io/buffer.h"
#include "io/executor.h"
#include "io/stream.h"
#include "io/sync.h"
#include "io/task.h"
#include "nbd/buffer_share.h"
#include "nbd/counters.h"
#include "nbd/protocol.h"

namespace nbd {

/// The place and the bytes that a request takes of its connection's, from its arrival until its
/// answer has been sent (X4).
class InFlight {
 public:
  InFlight() = default;
  InFlight(io::Grant place, io::Grant grant, Counters& counters, uint64_t bytes)
      : place_(std::move(place)), grant_(std::move(grant)), counters_(&counters), bytes_(bytes) {
    counters.in_flight_bytes += bytes;
  }
  InFlight(InFlight&& other) noexcept
      : place_(std::move(other.place_)),
        grant_(std::move(other.grant_)),
        counters_(std::exchange(other.counters_, nullptr)),
        bytes_(other.bytes_) {}
  InFlight& operator=(InFlight&& other) noexcept {
    std::swap(place_, other.place_);
    std::swap(grant_, other.grant_);
    std::swap(counters_, other.counters_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~InFlight() {
    if (!counters_) return;
    assert(counters_->in_flight_bytes >= bytes_ && "a request leaves once");
    counters_->in_flight_bytes -= bytes_;
  }

 private:
  io::Grant place_, grant_;
  Counters* counters_ = nullptr;
  uint64_t bytes_ = 0;
};

/// Bytes lent to a message; the event says that it does not need them any more.
class Loan {
 public:
  Loan() = default;
  Loan(std::span<const std::byte> bytes, io::Event& returned)
      : bytes_(bytes), returned_(&returned) {}
  Loan(Loan&& other) noexcept
      : bytes_(other.bytes_), returned_(std::exchange(other.returned_, nullptr)) {}
  Loan& operator=(Loan&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(returned_, other.returned_);
    return *this;
  }
  ~Loan() {
    if (returned_) returned_->set();
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
  io::Event* returned_ = nullptr;
};

/// Data that is fetched as it leaves, piece by piece through one buffer. A fetch that fails ends
/// the stream: the front of the message has been sent.
class FetchedData {
 public:
  using Fetch = std::function<io::Task<void>(uint64_t offset, std::span<std::byte> into)>;
  FetchedData(BufferShare::Piece through, uint64_t offset, uint64_t length, Fetch fetch)
      : through_(std::move(through)), offset_(offset), left_(length), fetch_(std::move(fetch)) {}

  /// The next bytes, valid until the next call; none at the end.
  io::Task<std::span<const std::byte>> next();

 private:
  BufferShare::Piece through_;
  uint64_t offset_, left_;
  Fetch fetch_;
};

/// A unit on the wire: a simple reply with its data, or one structured chunk. Nothing else is sent
/// between its bytes (P10).
class Message {
 public:
  /// Starts with fixed-size parts, one after the other; at most kHeadBytes.
  static constexpr size_t kHeadBytes = 48;
  template <size_t... kSizes>
  explicit Message(const std::array<std::byte, kSizes>&... parts) {
    static_assert((kSizes + ... + 0) <= kHeadBytes);
    (append(parts), ...);
  }
  /// One more such part after them.
  template <size_t kSize>
  Message& with_part(const std::array<std::byte, kSize>& part) {
    append(part);
    return *this;
  }
  Message& with_body(Bytes body) {
    body_ = std::move(body);
    return *this;
  }
  /// The buffers count as held until the message has been sent.
  Message& with_data(std::vector<io::Buffer> data, BufferShare::Hold hold) {
    data_ = std::move(data);
    hold_ = std::move(hold);
    return *this;
  }
  /// The same data, not in memory yet; after everything else.
  Message& with_fetched(FetchedData data) {
    fetched_ = std::make_unique<FetchedData>(std::move(data));
    return *this;
  }
  Message& with_borrowed(Loan loan) {
    borrowed_ = std::move(loan);
    return *this;
  }
  /// Held until the message has been sent.
  Message& with_in_flight(InFlight in_flight) {
    in_flight_ = std::move(in_flight);
    return *this;
  }

  /// What is in memory.
  void gather(std::vector<iovec>& pieces) const;
  size_t size() const;
  /// The fixed-size parts.
  std::span<const std::byte> head() const { return std::span(head_).first(head_bytes_); }
  FetchedData* fetched() const { return fetched_.get(); }

 private:
  void append(std::span<const std::byte> part);

  std::array<std::byte, kHeadBytes> head_;
  size_t head_bytes_ = 0;
  Bytes body_;
  BufferShare::Hold hold_;
  std::vector<io::Buffer> data_;  // given back before hold_ is
  std::unique_ptr<FetchedData> fetched_;
  Loan borrowed_;
  InFlight in_flight_;
};

/// The replies of one connection on their way out.
///
/// What is ready leaves together, some megabyte at a time, so that the buffers of what has been
/// sent are free for the next; one coroutine, run(), does all sending. Once the stream has failed,
/// replies are dropped. A reply that cannot be queued, for lack of memory, fails the stream: its
/// client must not wait for ever. Belongs to the stream's thread.
class Outbox {
 public:
  Outbox(io::Executor& executor, io::Stream& stream) : stream_(stream), changed_(executor) {}
  ~Outbox() { assert(!sending_ && batch_.empty() && "run() is awaited before it goes"); }

  void push(Message message) noexcept;

  /// Sends until finish(), then what is left, then says that nothing more comes. Returns early
  /// when the stream fails; never throws.
  io::Task<void> run();
  void finish();

  bool sending() const { return sending_; }
  bool failed() const { return failed_; }
  /// Bytes sent so far: a watch over progress compares two readings.
  uint64_t sent() const { return sent_; }

 private:
  void take_batch();
  void give_up() noexcept;
  io::Task<void> send_batch();
  io::Task<void> send_all(std::span<const iovec> pieces);

  io::Stream& stream_;
  io::Event changed_;
  std::deque<Message> ready_;
  std::vector<Message> batch_;  // being sent; only the last may have data to fetch
  std::vector<iovec> pieces_;   // of it
  bool finishing_ = false, sending_ = false, failed_ = false;
  uint64_t sent_ = 0;
};

}  // namespace nbd
