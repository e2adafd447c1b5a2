// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// How a payload reaches the device, and how much may be under way.

namespace nbd {
namespace {

class SessionWrites : public SessionTest {};

TEST_F(SessionWrites, PiecesEndAtClusterBoundariesAndLieAsTheDiskWantsThem) {  // C2, C18, K8
  wire::Client& client = connect(true);
  const uint64_t offset = 43520;  // the existing client's second third at 5 GiB, K8
  const Bytes data = pattern(32 << 20);
  EXPECT_EQ(ask(client, write_request(offset, data)).error, WireError::none);
  EXPECT_EQ(on_device(offset, data.size()), data);
  EXPECT_EQ(memory_.misplaced_writes, 0u);
  uint64_t at = offset;
  for (const size_t size : memory_.write_sizes) {
    EXPECT_LE(size, 1u << 20);
    at += size;
    if (at != offset + data.size()) {
      EXPECT_EQ(at % kCluster, 0u);
    }
  }
  EXPECT_EQ(at, offset + data.size());
  EXPECT_EQ(memory_.write_sizes.size(), 33u);
}

TEST_F(SessionWrites, SmallWritesAtEveryPhaseArrive) {  // C18
  wire::Client& client = connect(false);
  for (const uint64_t offset : {1, 511, 512, 4095, 4097, 65535, 65537, 131000}) {
    for (const size_t size : {1, 2, 511, 4096, 70000}) {
      const Bytes data = pattern(size, static_cast<uint32_t>(offset + size));
      EXPECT_EQ(ask(client, write_request(offset, data)).error, WireError::none);
      EXPECT_EQ(on_device(offset, size), data);
    }
  }
  EXPECT_EQ(memory_.misplaced_writes, 0u);
}

TEST_F(SessionWrites, EarlyPiecesAreAtTheDeviceWhileLaterOnesArrive) {  // C2
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::write);
  client.send(request(Command::write, 0, 4 << 20));
  client.send(Bytes(3 << 20));
  run(device_.until_waiting(3));
  client.send(Bytes((1 << 20) - 1));
  EXPECT_TRUE(device_.waiting() == 3);
  device_.open_gate();
  client.send(Bytes(1));
  EXPECT_EQ(client.receive_reply().error, WireError::none);
}

TEST_F(SessionWrites, ReplyWaitsForEveryPiece) {  // C2
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::write);
  client.send(write_request(0, Bytes(4 << 20), 0, 1));
  run(device_.until_waiting(4));
  client.send(request(Command::trim, 0, 512, 0, 2));
  EXPECT_EQ(client.receive_reply().cookie, 2u);
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().cookie, 1u);
}

TEST_F(SessionWrites, PipelinedRequestsInOneSegmentAreAllAnswered) {
  wire::Client& client = connect(false);
  Bytes talk;
  for (uint64_t cookie = 0; cookie < 200; ++cookie) {
    talk = wire::join(talk, write_request(cookie * 1000, pattern(1000, cookie), 0, cookie),
                      request(Command::flush, 0, 0, 0, 1000 + cookie));
  }
  client.send(talk);
  uint64_t sum = 0;
  for (int count = 0; count < 400; ++count) {
    const wire::Reply reply = client.receive_reply();
    EXPECT_EQ(reply.error, WireError::none);
    sum += reply.cookie;
  }
  EXPECT_EQ(sum, 199u * 200 / 2 * 2 + 200 * 1000);
  for (uint64_t cookie = 0; cookie < 200; ++cookie) {
    ASSERT_EQ(on_device(cookie * 1000, 1000), pattern(1000, cookie));
  }
}

TEST_F(SessionWrites, SingleBytesMakeTheSameRequests) {
  wire::Client& client = connect(true);
  const Bytes data = pattern(300);
  for (const std::byte byte :
       wire::join(write_request(65400, data, 0, 1), request(Command::read, 65400, 300, 0, 2))) {
    client.send(Bytes{byte});
  }
  EXPECT_EQ(client.receive_reply().cookie, 1u);
  Bytes back(300);
  bool done = false;
  while (!done) {
    const wire::Reply chunk = client.receive_reply();
    std::copy(chunk.payload.begin() + 8, chunk.payload.end(),
              back.begin() + (chunk.offset() - 65400));
    done = chunk.done;
  }
  EXPECT_EQ(back, data);
}

TEST_F(SessionWrites, ConnectionStopsReadingAtItsBytesInFlightAndGoesOn) {  // X4
  settings_.in_flight_bytes_max = 64 << 20;
  settings_.requests_max = 1 << 20;
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::flush);
  // Each request counts 4 KiB at least, so the 16,385th FLUSH waits for a place.
  constexpr uint64_t kRoom = (64 << 20) / 4096;
  Bytes talk;
  for (uint64_t cookie = 0; cookie < kRoom + 10; ++cookie) {
    const Bytes one = request(Command::flush, 0, 0, 0, cookie);
    talk.insert(talk.end(), one.begin(), one.end());
  }
  client.send(talk);
  run(device_.until_waiting(kRoom));
  pass_time(std::chrono::milliseconds(20));
  EXPECT_EQ(device_.waiting(), kRoom);
  EXPECT_EQ(exported_->counters().in_flight_bytes, 64u << 20);
  device_.open_gate();
  for (uint64_t count = 0; count < kRoom + 10; ++count) client.receive_reply();
  expect_alive(client);
}

TEST_F(SessionWrites, SixtyFourRequestsOf256KibAreAllUnderWay) {  // X4, K1
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::write);
  for (uint64_t cookie = 0; cookie < 64; ++cookie) {
    client.send(write_request(cookie << 18, Bytes(256 << 10), 0, cookie));
  }
  run(device_.until_waiting(64));
  device_.open_gate();
  for (int count = 0; count < 64; ++count) client.receive_reply();
}

TEST_F(SessionWrites, ClientThatDoesNotReadItsRepliesHindersNobody) {  // X8
  memory_.preset(0, 64 << 20, 1);
  wire::Client& slow = connect(true);
  for (int count = 0; count < 3; ++count) slow.send(request(Command::read, 0, 32 << 20));
  wire::Client& quick = connect(true);
  const io::SteadyTime start = ring().now();
  for (int count = 0; count < 100; ++count) expect_alive(quick);
  EXPECT_LT(ring().now() - start, std::chrono::seconds(2));
}

}  // namespace
}  // namespace nbd
