// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/stream.h"

#include <algorithm>
#include <cerrno>
#include <deque>

#include "io/failure.h"

namespace crash {

namespace {

/// One direction.
struct Pipe {
  explicit Pipe(Scheduler& scheduler) : scheduler(scheduler), changed(scheduler) {}
  Scheduler& scheduler;
  std::deque<std::byte> bytes;
  bool ended = false, aborted = false;
  io::Event changed;
};

class SimStream final : public io::Stream {
 public:
  SimStream(std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out)
      : in_(std::move(in)), out_(std::move(out)) {}
  ~SimStream() override { SimStream::abort(); }

  io::Task<size_t> receive(std::span<const iovec> into) override {
    const auto in = in_;
    co_await in->scheduler.turn(Turn::wire);
    while (in->bytes.empty() && !in->ended && !in->aborted) co_await in->changed.wait();
    if (in->aborted) throw io::failure("receive", "simulated stream", ECONNRESET);
    size_t room = 0;
    for (const iovec& piece : into) room += piece.iov_len;
    size_t count = std::min(room, in->bytes.size());
    if (count > 1 && in->scheduler.rng().one_in(4)) count = 1 + in->scheduler.rng().below(count);
    size_t left = count;
    for (const iovec& piece : into) {
      const size_t part = std::min(left, piece.iov_len);
      std::copy_n(in->bytes.begin(), part, static_cast<std::byte*>(piece.iov_base));
      in->bytes.erase(in->bytes.begin(), in->bytes.begin() + static_cast<ptrdiff_t>(part));
      left -= part;
    }
    co_return count;
  }

  bool has_arrived() const override { return !in_->bytes.empty() || in_->ended || in_->aborted; }

  io::Task<void> send(std::span<const iovec> from) override {
    const auto out = out_;
    co_await out->scheduler.turn(Turn::wire);
    if (out->aborted || out->ended) throw io::failure("send", "simulated stream", EPIPE);
    for (const iovec& piece : from) {
      const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
      out->bytes.insert(out->bytes.end(), bytes, bytes + piece.iov_len);
    }
    out->changed.wake();
  }

  io::Task<void> finish_sending() override {
    out_->ended = true;
    out_->changed.wake();
    co_return;
  }

  void abort() noexcept override {
    for (Pipe* const pipe : {in_.get(), out_.get()}) {
      pipe->aborted = true;
      pipe->changed.wake();
    }
  }

  std::string peer() const override { return "simulation"; }

 private:
  std::shared_ptr<Pipe> in_, out_;
};

}  // namespace

std::pair<std::unique_ptr<io::Stream>, std::unique_ptr<io::Stream>> stream_pair(
    Scheduler& scheduler) {
  const auto there = std::make_shared<Pipe>(scheduler), back = std::make_shared<Pipe>(scheduler);
  return {std::make_unique<SimStream>(there, back), std::make_unique<SimStream>(back, there)};
}

}  // namespace crash
