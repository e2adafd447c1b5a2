// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// Whoever controls what a guest writes must not control its export: whatever is refused, the bytes
// of a payload are never taken for requests (C15, X-1, X-5).

namespace nbd {
namespace {

enum class Standing : uint8_t { open, read_only, sealed, failed, closed };

class SessionStream : public SessionTest {
 protected:
  static constexpr uint64_t kVictim = 32 << 20;
  static constexpr uint64_t kForgedCookie = 666;

  SessionStream() { grace_ = std::chrono::minutes(1); }

  /// Requests, in both header forms, to zero what lies elsewhere.
  static Bytes forged(size_t size) {
    const Request zero{0, Command::write_zeroes, kForgedCookie, kVictim, kCluster};
    const Bytes both = wire::join(zero.encode(), zero.encode_extended());
    Bytes bytes(size);
    for (size_t at = 0; at < size; ++at) bytes[at] = both[at % both.size()];
    return bytes;
  }

  /// For what takes no new connections, bring_connected_to() does the rest.
  void bring_to(Standing standing) { make_export({.read_only = standing == Standing::read_only}); }
  void bring_connected_to(Standing standing) {
    if (standing == Standing::sealed) run(exported_->seal());
    if (standing == Standing::closed) exported_->close();
    if (standing == Standing::failed) {
      exported_->fail(std::make_exception_ptr(
          std::system_error(ENOSPC, std::generic_category(), "write disk.qcow2 @0+65536")));
    }
  }

  /// What a client that keeps to the protocol sends with this header.
  static size_t payload_bytes(bool extended, Command command, uint16_t flags, size_t length) {
    const bool marked = extended && (flags & kFlagPayloadLen) != 0;
    return command == Command::write || marked ? length : 0;
  }

  /// One answer to that request, and one to the request after it.
  void expect_in_step(wire::Client& client, uint16_t flags, uint16_t command, uint64_t offset,
                      size_t length) {
    Request request{flags, Command{command}, 7, offset, length};
    request.payload_bytes = payload_bytes(client.extended, request.command, flags, length);
    const Request next{0, Command{99}, 4711, 0, 0};
    const Bytes payload = forged(request.payload_bytes);
    if (client.extended) {
      client.send(wire::join(request.encode_extended(), payload, next.encode_extended()));
    } else {
      client.send(wire::join(request.encode(), payload, next.encode()));
    }
    bool answered = false, answered_next = false;
    while (!answered || !answered_next) {
      const wire::Reply reply = client.receive_reply();
      ASSERT_TRUE(reply.cookie == 7 || reply.cookie == 4711) << reply.cookie;
      if (reply.done) (reply.cookie == 7 ? answered : answered_next) = true;
    }
  }

  void expect_in_step_whatever_is_asked(wire::Client& client) {
    constexpr uint64_t kInside = 4096, kAcrossTheEnd = kSize - 10, kWraps = ~uint64_t{0} - 5;
    for (uint16_t command = 0; command <= 10; ++command) {
      if (Command{command} == Command::disconnect) continue;
      for (const uint16_t flags : {0x00, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x21, 0x30, 0x8000}) {
        for (const uint64_t offset : {kInside, kAcrossTheEnd, kWraps}) {
          for (const size_t length : {0, 512, 70'000}) {
            SCOPED_TRACE(
                fmt::format("command {} flags 0x{:x} @{}+{}", command, flags, offset, length));
            expect_in_step(client, flags, command, offset, length);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
};

TEST_F(SessionStream, NoPayloadIsTakenForRequestsWhateverIsRefused) {  // C15, X-1, X-5
  memory_.preset(kVictim, kCluster, 0x55);
  for (const Standing standing : {Standing::open, Standing::read_only, Standing::sealed,
                                  Standing::failed, Standing::closed}) {
    for (const bool extended : {false, true}) {
      SCOPED_TRACE(fmt::format("standing {} extended {}", static_cast<int>(standing), extended));
      bring_to(standing);
      wire::Client& client = extended ? connect_extended(1) : connect(true);
      bring_connected_to(standing);
      expect_in_step_whatever_is_asked(client);
      ASSERT_EQ(on_device(kVictim, kCluster), Bytes(kCluster, std::byte{0x55}));
      clients_.clear();
      run(sessions_.join());
    }
  }
}

}  // namespace
}  // namespace nbd
