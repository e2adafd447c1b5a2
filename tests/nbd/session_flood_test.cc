// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// Many requests, each of them small: what they make the server hold is bounded, and others go on
// (X4, X5, X8).

namespace nbd {
namespace {

class SessionFlood : public SessionTest {
 protected:
  static constexpr uint64_t kBudget = 4 << 20;
  static constexpr uint64_t kStatusBytes = 64 << 10;  // of an answer, in the budget

  SessionFlood() {
    for (uint64_t at = 0; at < kSize; at += 2 * kCluster) {  // no two neighbours are alike
      memory_.preset(at, std::min<uint64_t>(kCluster, kSize - at), 1);
    }
    run(exported_->join());
    const io::Runtime home = runtime();
    exported_ = Export::make({.name = "disk"}, device_,
                             {home.executor, home.clock, home.files, small_, home.random});
  }
  ~SessionFlood() override {
    device_.open_gate();
    clients_.clear();
    run(sessions_.join());
    run(exported_->join());
    make_export({});
  }

  static Bytes many(uint64_t count, const std::function<Bytes(uint64_t index)>& one) {
    Bytes talk;
    for (uint64_t index = 0; index < count; ++index) talk = wire::join(talk, one(index));
    return talk;
  }
  void let_pass() { pass_time(std::chrono::milliseconds(50)); }

  io::BufferPool small_{ring(), kBudget};
};

TEST_F(SessionFlood, NumberOfRequestsInFlightIsBounded) {  // X4
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::flush);
  client.send(many(1000, [](uint64_t index) { return request(Command::flush, 0, 0, 0, index); }));
  run(device_.until_waiting(256));
  let_pass();
  EXPECT_EQ(device_.waiting(), 256u);
  device_.open_gate();
  for (int count = 0; count < 1000; ++count) client.receive_reply();
  expect_alive(client);
}

TEST_F(SessionFlood, StatusThatIsNotReadCountsInTheBudget) {  // X4, X5, M10
  constexpr uint64_t kClients = 4, kRequests = 2000;
  const Bytes talk = many(
      kRequests, [](uint64_t index) { return request(Command::block_status, 0, kSize, 0, index); });
  for (uint64_t count = 0; count < kClients; ++count) connect(true, 2).send(talk);
  constexpr int kWaitsMax = 600;  // half a minute: a sanitizer is slow
  for (int waits = 0; small_.bytes_in_use() < kBudget - kStatusBytes && waits < kWaitsMax;
       ++waits) {
    let_pass();
  }
  let_pass();
  EXPECT_GE(small_.bytes_in_use(), kBudget - kStatusBytes);
  EXPECT_LE(small_.bytes_in_use(), kBudget + kClients * kStatusBytes);
  // What has been answered is in the budget, in the buffers of the sockets, or on its way there.
  EXPECT_LT(device_.calls(Verb::extents), 800u);
}

TEST_F(SessionFlood, StatusIsAnsweredThoughClientsThatDoNotReadHoldTheBudget) {  // X5, X8
  const Bytes talk =
      many(200, [](uint64_t index) { return request(Command::block_status, 0, kSize, 0, index); });
  for (int count = 0; count < 8; ++count) connect(true, 2).send(talk);
  let_pass();
  wire::Client& reader = connect(true, 2);
  reader.send(talk);
  for (int done = 0; done < 200;) {
    const wire::Reply chunk = reader.receive_reply();
    EXPECT_EQ(chunk.runs().size(), 1025u);
    done += chunk.done;
  }
}

TEST_F(SessionFlood, AnswerWithManyContextsStaysWithinItsBuffer) {  // M10
  for (const bool extended : {false, true}) {
    wire::Client& client = connect(Negotiation{true, extended, true}, 2);
    const Request whole{0, Command::block_status, 7, 0, kSize};
    const auto chunks = extended ? ask_chunks(client, wire::join(whole.encode_extended()))
                                 : ask_chunks(client, wire::join(whole.encode()));
    ASSERT_EQ(chunks.size(), 2u);
    for (const wire::Reply& chunk : chunks) {
      EXPECT_EQ(chunk.runs().size(), 1025u);
      EXPECT_LE(chunk.payload.size(), kStatusBytes);
    }
  }
}

TEST_F(SessionFlood, ChangesOfPartsOfBlocksWaitForRoom) {  // X4
  constexpr uint64_t kTwoEnds = 2 * kCluster;
  const Bytes talk = many(250, [](uint64_t index) {
    return request(Command::trim, (2 * index + 1) * kCluster + 100, kCluster, 0, index);
  });
  device_.shut_gate(Verb::discard);
  wire::Client& first = connect(true);
  first.send(talk);
  let_pass();
  EXPECT_EQ(device_.waiting(), Export::kChangeBytesOfOne / kTwoEnds);
  for (int count = 0; count < 5; ++count) connect(true).send(talk);
  let_pass();
  EXPECT_EQ(device_.waiting(), Export::kChangeBytes / kTwoEnds);
  connect(true).send(request(Command::trim, kCluster, kCluster));  // wholly: it needs none
  let_pass();
  EXPECT_EQ(device_.waiting(), Export::kChangeBytes / kTwoEnds + 1);
  device_.open_gate();
  for (const auto& client : clients_) {
    const int replies = client == clients_.back() ? 1 : 250;
    for (int count = 0; count < replies; ++count) {
      EXPECT_EQ(client->receive_reply().error, WireError::none);
    }
  }
}

TEST_F(SessionFlood, ZeroesThatMustBeStoredWaitForRoomToo) {  // X4, C11
  device_.shut_gate(Verb::write_zeroes);
  connect(true).send(many(100, [](uint64_t index) {
    return request(Command::write_zeroes, index << 19, 1 << 20, kFlagNoHole, index);
  }));
  let_pass();
  EXPECT_EQ(device_.waiting(), Export::kChangeBytesOfOne >> 20);
}

TEST_F(SessionFlood, ChangesThatWaitAreRefusedOnceTheExportIsSealed) {  // D7
  device_.shut_gate(Verb::discard);
  wire::Client& client = connect(true);
  client.send(many(100, [](uint64_t index) {
    return request(Command::trim, 2 * index * kCluster + 1, kCluster, 0, index);
  }));
  let_pass();
  io::TaskScope sealing;
  sealing.spawn(exported_->seal());
  device_.open_gate();
  run(sealing.join());
  uint64_t refused = 0;
  for (int count = 0; count < 100; ++count) {
    refused += client.receive_reply().error == WireError::eperm;
  }
  EXPECT_EQ(refused, 100 - Export::kChangeBytesOfOne / (2 * kCluster));
}

}  // namespace
}  // namespace nbd
