// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// What connections share is a budget of buffers; nobody who stands still may stop the others (X5).

namespace nbd {
namespace {

class SessionBudget : public SessionTest {
 protected:
  static constexpr uint64_t kBudget = 4 << 20;
  static constexpr size_t kPieceMax = (1 << 20) + (64 << 10);  // with what a block has around it

  SessionBudget() {
    memory_.preset(0, 64 << 20, 1);
    run(exported_->join());
    const io::Runtime home = runtime();
    exported_ = Export::make({.name = "disk"}, device_,
                             {home.executor, home.clock, home.files, small_, home.random});
  }
  ~SessionBudget() override {
    clients_.clear();
    run(sessions_.join());
    run(exported_->join());
    make_export({});
  }

  void let_pass() { pass_time(std::chrono::milliseconds(50)); }
  /// Clients that ask for far more than there is and read nothing.
  void use_up(bool structured) {
    for (int count = 0; count < 4; ++count) {
      wire::Client& stuck = connect(structured);
      for (int one = 0; one < 3; ++one) stuck.send(request(Command::read, 0, 32 << 20));
    }
    let_pass();
    ASSERT_EQ(small_.try_acquire(1 << 20).size(), 0u);
  }

  io::BufferPool small_{ring(), kBudget};
};

TEST_F(SessionBudget, ConnectionWithoutAPieceGetsOneThoughOthersHoldTheBudget) {  // X5
  for (int count = 0; count < 4; ++count) {
    wire::Client& greedy = connect(true);
    greedy.send(request(Command::write, 0, 1 << 20));
    greedy.send(Bytes(5));
  }
  let_pass();
  EXPECT_EQ(small_.try_acquire(1 << 20).size(), 0u);
  wire::Client& other = connect(true);
  EXPECT_EQ(ask(other, write_request(4 << 20, Bytes(3 << 20))).error, WireError::none);
}

TEST_F(SessionBudget, ReaderGoesOnThoughClientsThatDoNotReadHoldTheBudget) {  // X5, X8
  use_up(true);
  wire::Client& reader = connect(true);
  for (uint64_t cookie = 0; cookie < 3; ++cookie) {
    reader.send(request(Command::read, cookie << 23, 8 << 20, 0, cookie));
  }
  uint64_t bytes = 0;
  for (int done = 0; done < 3;) {
    const wire::Reply chunk = reader.receive_reply();
    ASSERT_EQ(chunk.type, ChunkType::offset_data);
    bytes += chunk.payload.size() - 8;
    if (chunk.done) ++done;
  }
  EXPECT_EQ(bytes, 24u << 20);
}

TEST_F(SessionBudget, ReaderWithoutChunksGoesOnToo) {  // X5, X8
  use_up(true);
  wire::Client& reader = connect(false);
  for (uint64_t cookie = 0; cookie < 3; ++cookie) {
    reader.send(request(Command::read, cookie << 23, 8 << 20, 0, cookie));
  }
  for (int count = 0; count < 3; ++count) {
    EXPECT_EQ(reader.receive_reply(8 << 20).error, WireError::none);
  }
}

TEST_F(SessionBudget, WriterThatReadsNoReplyOfItsOwnStillHasAPieceToWriteWith) {  // X5
  use_up(true);
  wire::Client& client = connect(true);
  client.send(request(Command::read, 0, 8 << 20, 0, 1));
  let_pass();
  client.send(write_request(32 << 20, Bytes(3 << 20), 0, 2));
  for (int done = 0; done < 2;) {
    if (client.receive_reply().done) ++done;
  }
}

TEST_F(SessionBudget, ClientsThatDoNotReadHaveOnePieceEachBeyondTheBudget) {  // X4, X5
  for (const bool structured : {false, true}) {
    use_up(structured);
    std::vector<wire::Client*> stuck;
    const uint64_t before = small_.bytes_in_use();
    for (int count = 0; count < 4; ++count) stuck.push_back(&connect(structured));
    for (uint64_t cookie = 0; cookie < 20; ++cookie) {
      for (wire::Client* const client : stuck) {
        client->send(request(Command::read, cookie << 20, 1 << 20, 0, cookie));
      }
      pass_time(std::chrono::milliseconds(3));  // each READ finds the one before it answered
    }
    let_pass();
    EXPECT_LE(small_.bytes_in_use(), before + 4 * kPieceMax);
    clients_.clear();
    run(sessions_.join());
  }
}

TEST_F(SessionBudget, ReadInOnePieceHasOnePieceBeyondTheBudgetWhateverItsSize) {  // X4, X5, X8
  for (const bool structured : {false, true}) {
    const uint16_t flags = structured ? kFlagDf : 0;
    std::vector<wire::Client*> stuck;
    for (int count = 0; count < 12; ++count) stuck.push_back(&connect(structured));
    for (uint64_t cookie = 0; cookie < 3; ++cookie) {
      for (wire::Client* const client : stuck) {
        client->send(request(Command::read, 0, 32 << 20, flags, cookie));
      }
    }
    let_pass();
    EXPECT_LE(small_.bytes_in_use(), kBudget + 12 * kPieceMax);
    wire::Client& reader = connect(structured);
    EXPECT_EQ(ask(reader, request(Command::read, 5, 3 << 20, flags), 3 << 20).error,
              WireError::none);
    expect_alive(reader);
    clients_.clear();
    run(sessions_.join());
  }
}

TEST_F(SessionBudget, ReadThatIsFetchedAsItLeavesIsWhatWasAskedFor) {  // P6, P8
  std::ranges::copy(pattern(8 << 20), memory_.bytes().begin());
  for (const bool structured : {false, true}) {
    use_up(true);
    wire::Client& reader = connect(structured);
    const uint16_t flags = structured ? kFlagDf : 0;
    constexpr uint64_t kOffset = (1 << 20) - 3;
    for (const uint64_t length : {4u, 1u << 20, (5u << 20) + 1001}) {
      for (uint64_t cookie = 0; cookie < 2; ++cookie) {
        reader.send(request(Command::read, kOffset, length, flags, cookie));
      }
      for (int count = 0; count < 2; ++count) {
        const wire::Reply reply = reader.receive_reply(length);
        const auto data = std::span(reply.payload).subspan(structured ? 8 : 0);
        EXPECT_TRUE(reply.done);
        EXPECT_TRUE(std::ranges::equal(data, on_device(kOffset, length)));
      }
    }
    expect_alive(reader);
    clients_.clear();
    run(sessions_.join());
  }
}

TEST_F(SessionBudget, ReadThatIsFetchedAsItLeavesFailsBeforeItsReplyBegins) {  // P8
  use_up(true);
  wire::Client& reader = connect(false);
  device_.fail(Verb::read, EIO, 3);  // one piece behind the other, the fourth fails
  expect_error(ask(reader, request(Command::read, 0, 5 << 20)), WireError::eio);
  device_.heal();
  expect_alive(reader);
}

TEST_F(SessionBudget, ReadThatFailsTheSecondTimeEndsItsConnection) {  // P8
  use_up(true);
  wire::Client& reader = connect(false);
  device_.fail(Verb::read, EIO, 5 + 2);  // five to see that it can be read
  reader.send(request(Command::read, 0, 5 << 20));
  EXPECT_THROW(reader.receive_reply(5 << 20), std::exception);
  EXPECT_EQ(exported_->counters().abnormal_ends, 1u);
  device_.heal();
  expect_alive(connect(false));
}

}  // namespace
}  // namespace nbd
