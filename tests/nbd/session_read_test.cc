// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

namespace nbd {
namespace {

class SessionReads : public SessionTest {};

TEST_F(SessionReads, SimpleReplyCarriesTheData) {  // P1, P8, C1
  memory_.preset(100, 200000, 0x5a);
  wire::Client& client = connect(false);
  const wire::Reply reply = ask(client, request(Command::read, 50, 250000), 250000);
  EXPECT_FALSE(reply.structured);
  EXPECT_EQ(reply.error, WireError::none);
  EXPECT_EQ(reply.payload, on_device(50, 250000));
}

TEST_F(SessionReads, HolesAreSentAsHoles) {  // P2, P3, P5, Q16
  memory_.preset(2 * kCluster, kCluster, 0x5a);
  wire::Client& client = connect(true);
  const auto chunks = ask_chunks(client, request(Command::read, 0, 10 * kCluster));
  ASSERT_EQ(chunks.size(), 3u);
  uint64_t holes = 0, data = 0;
  for (const wire::Reply& chunk : chunks) {
    holes += chunk.type == ChunkType::offset_hole ? chunk.hole_length() : 0;
    data += chunk.type == ChunkType::offset_data ? chunk.payload.size() - 8 : 0;
  }
  EXPECT_EQ(holes, 9 * kCluster);
  EXPECT_EQ(data, kCluster);
  EXPECT_EQ(content(chunks, 0, 10 * kCluster), on_device(0, 10 * kCluster));
}

TEST_F(SessionReads, ZeroAndUnallocatedNeighboursAreOneHole) {  // P5
  memory_.preset(kCluster, kCluster, 0, support::MemoryDevice::Cluster::zero);
  wire::Client& client = connect(true);
  const auto chunks = ask_chunks(client, request(Command::read, 0, 4 * kCluster));
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].hole_length(), 4 * kCluster);
}

TEST_F(SessionReads, AnyRangeReadsRight) {  // C18, P4
  memory_.preset(0, kSize, 0x11);
  const Bytes noise = pattern(3 << 20);
  std::copy(noise.begin(), noise.end(), memory_.bytes().begin() + 65000);
  wire::Client& client = connect(true);
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, size_t>>{
           {0, 1}, {1, 4095}, {65535, 2}, {64999, 3 << 20}, {kSize - 1, 1}, {0, 40 << 20}}) {
    EXPECT_EQ(content(ask_chunks(client, request(Command::read, offset, length)), offset, length),
              on_device(offset, length));
  }
}

TEST_F(SessionReads, UpToSixtyFourMibAreServed) {  // C4
  memory_.preset(0, 64 << 20, 0x77);
  wire::Client& simple = connect(false);
  const size_t size = 64 << 20;
  EXPECT_EQ(ask(simple, request(Command::read, 0, size), size).payload, on_device(0, size));
  wire::Client& client = connect(true);
  const auto chunks = ask_chunks(client, request(Command::read, 0, size));
  for (const wire::Reply& chunk : chunks) EXPECT_LE(chunk.payload.size(), (32u << 20) + 8);
  EXPECT_EQ(content(chunks, 0, size), on_device(0, size));
}

TEST_F(SessionReads, LongerReadsOverflow) {  // C4
  support::MemoryDevice huge(uint64_t{70} << 20);
  run(exported_->join());
  exported_ = Export::make({.name = "disk"}, huge, runtime());
  wire::Client& client = connect(true);
  expect_error(ask(client, request(Command::read, 0, (64 << 20) + 1)), WireError::eoverflow);
  expect_alive(client);
  wire::Client& simple = connect(false);
  expect_error(ask(simple, request(Command::read, 0, (64 << 20) + 1)), WireError::einval);
  expect_alive(simple);
  clients_.clear();
  run(sessions_.join());
  run(exported_->join());
  make_export({});
}

TEST_F(SessionReads, DontFragmentGivesOneChunk) {  // P6
  memory_.preset(2 * kCluster, 3 << 20, 0x5a);
  wire::Client& client = connect(true);
  auto chunks = ask_chunks(client, request(Command::read, 100, 4 << 20, kFlagDf));
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].type, ChunkType::offset_data);
  EXPECT_EQ(content(chunks, 100, 4 << 20), on_device(100, 4 << 20));
  chunks = ask_chunks(client, request(Command::read, 8 << 20, 32 << 20, kFlagDf));
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].type, ChunkType::offset_hole);
  EXPECT_EQ(chunks[0].hole_length(), 32u << 20);
  expect_error(ask(client, request(Command::read, 0, (32 << 20) + 1, kFlagDf)),
               WireError::eoverflow);  // C4
  expect_alive(client);
}

TEST_F(SessionReads, DontFragmentNeedsStructuredReplies) {  // C1
  wire::Client& client = connect(false);
  expect_error(ask(client, request(Command::read, 0, 512, kFlagDf)), WireError::einval);
  expect_alive(client);
}

TEST_F(SessionReads, FailedSimpleReadSendsNoData) {  // P8
  memory_.preset(0, 8 << 20, 1);
  device_.fail(Verb::read, EIO, 3);
  wire::Client& client = connect(false);
  expect_error(ask(client, request(Command::read, 0, 8 << 20)), WireError::eio);
  device_.heal();
  expect_alive(client);
  EXPECT_EQ(exported_->failure(), nullptr);  // a read that fails does not fail the job
}

TEST_F(SessionReads, FailedPieceLeavesTheOthersWhole) {  // P9
  memory_.preset(0, 4 << 20, 1);
  device_.fail(Verb::read, EIO, 3);  // the fourth piece of 1 MiB
  wire::Client& client = connect(true);
  const auto chunks = ask_chunks(client, request(Command::read, 0, 4 << 20));
  uint64_t data = 0, failed = 0;
  for (const wire::Reply& chunk : chunks) {
    if (chunk.type == ChunkType::offset_data) data += chunk.payload.size() - 8;
    if (chunk.type == ChunkType::error_offset) {
      ++failed;
      EXPECT_EQ(chunk.chunk_error(), WireError::eio);
      EXPECT_EQ(io::load_be<uint64_t>(chunk.payload.data() + chunk.payload.size() - 8), 3u << 20);
    }
  }
  EXPECT_EQ(data, 3u << 20);
  EXPECT_EQ(failed, 1u);
  device_.heal();
  expect_alive(client);
}

TEST_F(SessionReads, UnreadableMapIsAnError) {
  device_.fail(Verb::extents, EIO);
  wire::Client& client = connect(true);
  expect_error(ask(client, request(Command::read, 0, 4096)), WireError::eio);
  device_.heal();
  expect_alive(client);
}

TEST_F(SessionReads, RepliesOvertakeOneAnother) {  // P10
  memory_.preset(0, kCluster, 1);
  wire::Client& client = connect(true);
  device_.shut_gate(Verb::read);
  client.send(request(Command::read, 0, 100, 0, 1));
  client.send(request(Command::flush, 0, 0, 0, 2));
  EXPECT_EQ(client.receive_reply().cookie, 2u);
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().cookie, 1u);
}

TEST_F(SessionReads, StatusDescribesTheRange) {  // M1, M2, M8
  memory_.preset(kCluster, kCluster, 1);
  memory_.preset(2 * kCluster, kCluster, 2, support::MemoryDevice::Cluster::data);
  memory_.preset(3 * kCluster, kCluster, 0, support::MemoryDevice::Cluster::zero);
  wire::Client& client = connect(true, 2);
  const auto chunks = ask_chunks(client, request(Command::block_status, 1000, 5 * kCluster));
  ASSERT_EQ(chunks.size(), 2u);
  EXPECT_EQ(chunks[0].type, ChunkType::block_status);
  EXPECT_EQ(chunks[0].context_id(), 1u);
  EXPECT_EQ(
      chunks[0].runs(),
      (std::vector<StatusRun>{{kCluster - 1000, 3}, {2 * kCluster, 0}, {2 * kCluster + 1000, 3}}));
  EXPECT_EQ(chunks[1].context_id(), 2u);
  EXPECT_EQ(chunks[1].runs(),
            (std::vector<StatusRun>{
                {kCluster - 1000, 0}, {kCluster, 2}, {2 * kCluster, 1}, {kCluster + 1000, 0}}));
}

TEST_F(SessionReads, StatusOfOneRunNeverPassesTheLength) {  // M9
  wire::Client& client = connect(true, 1);
  for (const uint32_t length : {1000u, kCluster, 3 * kCluster}) {
    const auto chunks = ask_chunks(client, request(Command::block_status, 5, length, kFlagReqOne));
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].runs(), (std::vector<StatusRun>{{length, 3}}));
  }
  memory_.preset(kCluster, kCluster, 1);
  const auto chunks =
      ask_chunks(client, request(Command::block_status, 0, 3 * kCluster, kFlagReqOne));
  EXPECT_EQ(chunks[0].runs(), (std::vector<StatusRun>{{kCluster, 3}}));
}

TEST_F(SessionReads, StatusIsBoundedAndCanBeContinued) {  // M10, Q22
  for (uint64_t at = 0; at < kSize; at += 2 * kCluster) {
    memory_.preset(at, std::min<uint64_t>(kCluster, kSize - at), 1);
  }
  settings_.status_bounds.runs_max = 100;
  wire::Client& client = connect(true, 1);
  uint64_t offset = 0, answers = 0;
  while (offset < kSize) {
    const auto chunks = ask_chunks(client, request(Command::block_status, offset, kSize - offset));
    ASSERT_LE(chunks[0].runs().size(), 100u);
    for (const StatusRun& run : chunks[0].runs()) {
      ASSERT_GT(run.length, 0u);
      ASSERT_EQ(run.flags, offset / kCluster % 2 == 0 ? 0u : 3u);
      offset += run.length;
    }
    ++answers;
  }
  EXPECT_EQ(offset, kSize);
  EXPECT_EQ(answers, 11u);  // 1,025 clusters that differ from their neighbours
}

TEST_F(SessionReads, StatusThatCannotBeIsRefused) {  // C13, O18
  wire::Client& without = connect(true);
  expect_error(ask(without, request(Command::block_status, 0, 512)), WireError::einval);
  wire::Client& client = connect(true, 1);
  expect_error(ask(client, request(Command::block_status, 0, 0)), WireError::einval);
  expect_error(ask(client, request(Command::block_status, kSize, 1)), WireError::einval);
  expect_error(ask(client, request(Command::block_status, 0, 512, kFlagDf)), WireError::einval);
  expect_alive(client);
}

}  // namespace
}  // namespace nbd
