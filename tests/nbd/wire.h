// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/big_endian.h"
#include "io/socket.h"
#include "nbd/options.h"
#include "nbd/protocol.h"

/// What the tests of nbd/ say and hear on the wire.
namespace nbd::wire {

/// "4e 42 44" or "4e4244" as bytes.
inline Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  std::string digits;
  for (const char c : hex) {
    if (c != ' ') digits += c;
  }
  for (size_t at = 0; at < digits.size(); at += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(digits.substr(at, 2), nullptr, 16)));
  }
  return bytes;
}

template <class Range>
std::string to_hex(const Range& bytes) {
  std::string hex;
  for (const std::byte byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return hex;
}

inline Bytes from_text(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return Bytes(bytes.begin(), bytes.end());
}

inline std::string to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class... Parts>
Bytes join(const Parts&... parts) {
  Bytes all;
  (all.insert(all.end(), std::begin(parts), std::end(parts)), ...);
  return all;
}

inline Bytes option(uint32_t number, const Bytes& data = {}) {
  return join(OptionHeader{Option{number}, static_cast<uint32_t>(data.size())}.encode(), data);
}
inline Bytes option(Option which, const Bytes& data = {}) { return option(number_of(which), data); }

/// A pair of connected sockets on one ring.
inline std::pair<std::unique_ptr<io::Socket>, std::unique_ptr<io::Socket>> socket_pair(
    io::Ring& ring) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    throw std::runtime_error("no socket pair");
  }
  return {std::make_unique<io::Socket>(ring, io::OwnedFd(fds[0]), "test server"),
          std::make_unique<io::Socket>(ring, io::OwnedFd(fds[1]), "test client")};
}

struct OptionAnswer {
  uint32_t option = 0;
  OptionReply type = OptionReply::ack;
  Bytes data;
  std::string text() const { return to_text(data); }
};

/// A structured chunk or a simple reply.
struct Reply {
  bool structured = false;
  bool done = true;
  ChunkType type = ChunkType::none;
  WireError error = WireError::none;
  uint64_t cookie = 0;
  Bytes payload;                ///< of a chunk
  uint64_t request_offset = 0;  ///< with extended headers

  uint64_t offset() const { return io::load_be<uint64_t>(payload.data()); }
  uint32_t hole_length() const { return io::load_be<uint32_t>(payload.data() + 8); }
  WireError chunk_error() const { return WireError{io::load_be<uint32_t>(payload.data())}; }
  std::string error_text() const {
    const size_t length = io::load_be<uint16_t>(payload.data() + 4);
    return to_text(std::span(payload).subspan(6, length));
  }
  std::vector<StatusRun> runs() const {
    std::vector<StatusRun> found;
    if (type == ChunkType::block_status_ext) {
      for (size_t at = 8; at < payload.size(); at += 16) {
        found.push_back({io::load_be<uint64_t>(payload.data() + at),
                         io::load_be<uint64_t>(payload.data() + at + 8)});
      }
      return found;
    }
    for (size_t at = 4; at < payload.size(); at += 8) {
      found.push_back({io::load_be<uint32_t>(payload.data() + at),
                       io::load_be<uint32_t>(payload.data() + at + 4)});
    }
    return found;
  }
  uint32_t context_id() const { return io::load_be<uint32_t>(payload.data()); }
};

/// The client's end of a connection, driven step by step by the test. Every wait ends after some
/// seconds, with an exception.
class Client {
 public:
  Client(io::Ring& ring, std::unique_ptr<io::Socket> socket)
      : ring_(ring), socket_(std::move(socket)) {}

  void send(const Bytes& bytes) {
    const iovec piece = io::as_iovec(bytes);
    ring_.run(socket_->send({&piece, 1}));
  }
  template <size_t kSize>
  void send(const std::array<std::byte, kSize>& bytes) {
    send(Bytes(bytes.begin(), bytes.end()));
  }

  Bytes receive(size_t count) {
    Bytes bytes(count);
    const auto alarm = patience();
    if (!ring_.run(io::receive_exactly(*socket_, bytes)) && count > 0) {
      throw std::runtime_error("the server closed the connection");
    }
    return bytes;
  }

  /// True when the server ends the stream without another byte; false when it resets it, or
  /// sends something.
  bool ends() {
    std::byte byte{};
    const auto alarm = patience();
    try {
      const bool ended = !ring_.run(io::receive_exactly(*socket_, {&byte, 1}));
      return ended && !late_;
    } catch (const std::system_error&) {
      return false;
    }
  }

  /// True when nothing arrives for a while.
  bool is_quiet(io::Duration time = std::chrono::milliseconds(50)) {
    std::byte byte{};
    const auto alarm = ring_.call_at(ring_.now() + time, [this] { socket_->abort(); });
    try {
      return !ring_.run(io::receive_exactly(*socket_, {&byte, 1}));
    } catch (const std::system_error&) {
      return true;
    }
  }

  void finish_sending() { ring_.run(socket_->finish_sending()); }
  /// Goes away without a word.
  void vanish() { socket_.reset(); }

  OptionAnswer receive_answer() {
    const Bytes header = receive(20);
    io::BigEndianReader in(header);
    if (in.take<uint64_t>() != kOptionReplyMagic) throw std::runtime_error("wrong reply magic");
    OptionAnswer answer{in.take<uint32_t>(), OptionReply{in.take<uint32_t>()}, {}};
    answer.data = receive(in.take<uint32_t>());
    return answer;
  }

  /// The next reply, whose READ data (of simple replies) is `data_bytes` long.
  Reply receive_reply(size_t data_bytes = 0) {
    if (extended) {
      const Bytes wire = receive(ChunkHeader::kExtendedWireBytes);
      return receive_chunk(ChunkHeader::decode_extended(
          std::span<const std::byte, ChunkHeader::kExtendedWireBytes>(wire.data(), wire.size())));
    }
    const Bytes magic = receive(4);
    Reply reply;
    if (io::load_be<uint32_t>(magic.data()) == kSimpleReplyMagic) {
      const Bytes wire = join(magic, receive(SimpleReply::kWireBytes - 4));
      const auto simple = SimpleReply::decode(
          std::span<const std::byte, SimpleReply::kWireBytes>(wire.data(), wire.size()));
      reply.error = simple.error;
      reply.cookie = simple.cookie;
      if (simple.error == WireError::none) reply.payload = receive(data_bytes);
      return reply;
    }
    const Bytes wire = join(magic, receive(ChunkHeader::kWireBytes - 4));
    return receive_chunk(ChunkHeader::decode(
        std::span<const std::byte, ChunkHeader::kWireBytes>(wire.data(), wire.size())));
  }

  bool extended = false;  ///< replies come with extended headers, all of them

 private:
  Reply receive_chunk(const ChunkHeader& chunk) {
    Reply reply;
    reply.structured = true;
    reply.done = chunk.done;
    reply.type = chunk.type;
    reply.cookie = chunk.cookie;
    reply.request_offset = chunk.offset;
    reply.payload = receive(chunk.length);
    if (chunk.type == ChunkType::error || chunk.type == ChunkType::error_offset) {
      reply.error = reply.chunk_error();
    }
    return reply;
  }

  std::unique_ptr<io::Clock::Alarm> patience() {
    return ring_.call_at(ring_.now() + std::chrono::seconds(10), [this] {
      late_ = true;
      socket_->abort();
    });
  }

  io::Ring& ring_;
  std::unique_ptr<io::Socket> socket_;
  bool late_ = false;
};

}  // namespace nbd::wire
