// SPDX-License-Identifier: Apache-2.0
// The bare sink: what the socket and the disk allow, without QCOW2, safety or a second client.
//
// It takes one NBD connection and puts the payload of its WRITEs one behind the other into a file
// whose space was allocated ahead, with O_DIRECT, a few writes in flight, and answers once the
// bytes are accepted. bench/ingest.py compares varve with it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <vector>

#include "io/big_endian.h"
#include "io/listener.h"
#include "io/ring_thread.h"
#include "nbd/options.h"
#include "nbd/protocol.h"

namespace {

constexpr size_t kPieceBytes = 1 << 20;
constexpr uint64_t kStepBytes = 256 << 20;
constexpr uint64_t kWritesInFlight = 8;

class Sink {
 public:
  Sink(io::RingRuntime& parts, uint64_t size)
      : runtime_(parts.runtime()),
        ring_(parts.ring()),
        size_(size),
        slots_(ring_, kWritesInFlight) {}

  io::Task<void> serve(std::string socket, std::string path) {
    file_ = co_await runtime_.files.open(path, io::OpenMode::create_new);
    co_await file_->allocate(0, kStepBytes);
    allocated_ = kStepBytes;
    const auto listener = io::Listener::unix_socket(ring_, socket);
    stream_ = co_await listener->accept();
    co_await handshake();
    while (co_await serve_request()) {
    }
    co_await writes_.join();
    co_await file_->truncate(end_);
    co_await file_->sync_data();
  }

 private:
  io::Task<void> send(std::span<const std::byte> bytes) {
    const iovec piece = io::as_iovec(bytes);
    co_await stream_->send({&piece, 1});
  }

  io::Task<void> handshake() {
    const auto greeting = nbd::Greeting::encode();
    co_await send(greeting);
    std::array<std::byte, 4 + nbd::OptionHeader::kWireBytes> hello;
    co_await io::receive_exactly(*stream_, hello);
    const auto option =
        nbd::OptionHeader::decode(std::span(hello).last<nbd::OptionHeader::kWireBytes>());
    if (option.option != nbd::Option::go) throw nbd::ProtocolError("the sink knows only GO");
    std::vector<std::byte> data(option.length);
    co_await io::receive_exactly(*stream_, data);
    nbd::Bytes answer;
    nbd::append_reply(answer, option.option, nbd::OptionReply::info,
                      nbd::encode_info_export(size_, nbd::kHasFlags | nbd::kSendFlush));
    nbd::append_reply(answer, option.option, nbd::OptionReply::ack, {});
    co_await send(answer);
  }

  io::Task<bool> serve_request() {
    std::array<std::byte, nbd::Request::kWireBytes> header;
    if (!co_await io::receive_exactly(*stream_, header)) co_return false;
    const auto request = nbd::Request::decode(header);
    if (request.command == nbd::Command::disconnect) co_return false;
    if (request.command == nbd::Command::flush) co_await flush();
    for (uint64_t left = request.command == nbd::Command::write ? request.length : 0; left > 0;) {
      const auto size = static_cast<size_t>(std::min<uint64_t>(left, kPieceBytes));
      io::Buffer piece = co_await runtime_.buffers.acquire(size);
      co_await io::receive_exactly(*stream_, piece.bytes());
      io::Grant slot = co_await io::Grant::acquire(slots_, 1);
      writes_.spawn(write(end_, std::move(piece), std::move(slot)));
      end_ += size;
      left -= size;
      if (end_ + kStepBytes / 2 > allocated_) {
        co_await file_->allocate(allocated_, kStepBytes);
        allocated_ += kStepBytes;
      }
    }
    const auto reply = nbd::SimpleReply{nbd::WireError::none, request.cookie}.encode();
    co_await send(reply);
    co_return true;
  }

  io::Task<void> write(uint64_t at, io::Buffer piece, io::Grant slot) {
    co_await file_->write(at, piece.bytes());
    slot.release();
  }

  io::Task<void> flush() {
    co_await writes_.join();
    co_await file_->sync_data();
  }

  io::Runtime runtime_;
  io::Ring& ring_;
  uint64_t size_;
  std::unique_ptr<io::File> file_;
  std::unique_ptr<io::Socket> stream_;
  io::TaskScope writes_;
  io::Semaphore slots_;
  uint64_t end_ = 0, allocated_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("a bare NBD sink for one connection");
  std::string socket, path;
  uint64_t size = uint64_t{1} << 40;
  app.add_option("--socket", socket, "Unix socket")->required();
  app.add_option("--file", path, "file to make")->required();
  app.add_option("--size", size, "export size");
  CLI11_PARSE(app, argc, argv);
  try {
    io::RingRuntime parts;
    Sink sink(parts, size);
    parts.ring().run(sink.serve(socket, path));
    return 0;
  } catch (const std::exception& failure) {
    fmt::print(stderr, "sink: {}\n", failure.what());
    return 1;
  }
}
