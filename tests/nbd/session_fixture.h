// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "nbd/session.h"
#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

namespace nbd {

/// Sessions on one export over a disk in memory that can fail and wait. The test is the client,
/// step by step.
class SessionTest : public support::RingTest {
 protected:
  static constexpr uint64_t kSize = (64 << 20) + 1000;
  static constexpr uint32_t kCluster = 65536;
  using Verb = support::FaultyDevice::Verb;

  SessionTest() { make_export({}); }
  ~SessionTest() override {
    device_.open_gate();
    clients_.clear();
    run(sessions_.join());
    run(exported_->join());
  }

  /// Replaces the export; before any client.
  void make_export(ExportSpec spec) {
    if (exported_) run(exported_->join());
    spec.name = "disk";
    spec.close_grace = grace_;
    spec.half_received_grace = grace_;
    spec.linger = grace_;
    exported_ = Export::make(std::move(spec), device_, runtime());
  }

  /// A new client in transmission. `context_count`: of base:allocation, qemu:allocation-depth.
  wire::Client& connect(bool structured, size_t context_count = 0) {
    return connect(Negotiation{structured, false, context_count > 0}, context_count);
  }
  wire::Client& connect_extended(size_t context_count = 0) {
    return connect(Negotiation{true, true, context_count > 0}, context_count);
  }
  wire::Client& connect(Negotiation rules, size_t context_count) {
    auto [server, client] = wire::socket_pair(ring());
    clients_.push_back(std::make_unique<wire::Client>(ring(), std::move(client)));
    auto place = exported_->connect();
    clients_.back()->extended = rules.extended_headers;
    Negotiated negotiated{
        AdmissionSlot(admission_), std::move(std::get<ConnectionPlace>(place)), rules, {}};
    for (size_t index = 0; index < context_count; ++index) {
      negotiated.contexts.push_back({static_cast<uint32_t>(index) + 1, index});
    }
    sessions_.spawn(serve(std::move(server), std::move(negotiated), settings_));
    return *clients_.back();
  }

  static Bytes request(Command command, uint64_t offset, uint64_t length, uint16_t flags = 0,
                       uint64_t cookie = 7) {
    const auto wire = Request{flags, command, cookie, offset, length}.encode();
    return Bytes(wire.begin(), wire.end());
  }
  static Bytes write_request(uint64_t offset, const Bytes& payload, uint16_t flags = 0,
                             uint64_t cookie = 7) {
    return wire::join(request(Command::write, offset, payload.size(), flags, cookie), payload);
  }
  /// Bytes that differ from any near them; the same for the same seed.
  static Bytes pattern(size_t size, uint32_t seed = 1) {
    constexpr size_t kTileBytes = 65521;  // a prime: tiles never line up with clusters
    Bytes bytes(size);
    uint32_t state = seed * 2654435761u + 1;
    for (std::byte& byte : std::span(bytes).first(std::min(size, kTileBytes))) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<std::byte>(state >> 24);
    }
    for (size_t at = kTileBytes; at < size; at += kTileBytes) {
      std::memcpy(bytes.data() + at, bytes.data(), std::min(kTileBytes, size - at));
    }
    return bytes;
  }

  wire::Reply ask(wire::Client& client, const Bytes& message, size_t data_bytes = 0) {
    client.send(message);
    return client.receive_reply(data_bytes);
  }
  /// All chunks of one structured reply; DONE is on the last one only, by construction.
  std::vector<wire::Reply> ask_chunks(wire::Client& client, const Bytes& message) {
    client.send(message);
    std::vector<wire::Reply> chunks;
    do {
      chunks.push_back(client.receive_reply());
    } while (!chunks.back().done);
    return chunks;
  }
  /// The bytes that the chunks of a READ describe.
  static Bytes content(const std::vector<wire::Reply>& chunks, uint64_t offset, size_t length) {
    Bytes bytes(length, std::byte{0xee});
    for (const wire::Reply& chunk : chunks) {
      const size_t at = chunk.payload.empty() ? 0 : chunk.offset() - offset;
      if (chunk.type == ChunkType::offset_data) {
        std::copy(chunk.payload.begin() + 8, chunk.payload.end(), bytes.begin() + at);
      } else if (chunk.type == ChunkType::offset_hole) {
        std::fill_n(bytes.begin() + at, chunk.hole_length(), std::byte{0});
      }
    }
    return bytes;
  }
  Bytes on_device(uint64_t offset, size_t length) {
    const auto from = memory_.bytes().subspan(offset, length);
    return Bytes(from.begin(), from.end());
  }
  /// The connection still serves.
  void expect_alive(wire::Client& client) {
    const wire::Reply reply = ask(client, request(Command::flush, 0, 0, 0, 4711));
    EXPECT_EQ(reply.error, WireError::none);
    EXPECT_EQ(reply.cookie, 4711u);
  }
  void expect_error(const wire::Reply& reply, WireError error, const std::string& text = {}) {
    EXPECT_EQ(reply.error, error);
    EXPECT_EQ(reply.cookie, 7u);
    if (reply.structured) {
      EXPECT_TRUE(reply.done);
      EXPECT_FALSE(reply.error_text().empty());
      if (!text.empty()) {
        EXPECT_EQ(reply.error_text(), text);
      }
    }
  }
  void pass_time(io::Duration time) { run(io::sleep(ring(), ring(), time)); }

  io::Duration grace_ = std::chrono::milliseconds(100);
  SessionSettings settings_;
  support::MemoryDevice memory_{kSize, kCluster};
  support::FaultyDevice device_{memory_, ring()};
  Admission admission_;
  std::shared_ptr<Export> exported_;
  std::vector<std::unique_ptr<wire::Client>> clients_;
  io::TaskScope sessions_;

 private:
  static io::Task<void> serve(std::unique_ptr<io::Stream> stream, Negotiated negotiated,
                              SessionSettings settings) {
    Session session(std::move(stream), std::move(negotiated), {}, settings);
    co_await session.serve();
  }
};

}  // namespace nbd
