// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// Extended headers: of docs/nbd-support.md. What a command does is tested with the
// other headers; here it is how it is asked and answered.

namespace nbd {
namespace {

class SessionExtended : public SessionTest {
 protected:
  static Bytes ask_for(Command command, uint64_t offset, uint64_t length, uint16_t flags = 0) {
    const auto wire = Request{flags, command, 7, offset, length}.encode_extended();
    return Bytes(wire.begin(), wire.end());
  }
  /// A request with PAYLOAD_LEN and that payload.
  static Bytes with_payload(Command command, uint64_t offset, const Bytes& payload,
                            uint16_t flags = 0) {
    Request request{static_cast<uint16_t>(flags | kFlagPayloadLen), command, 7, offset, 0};
    request.payload_bytes = payload.size();
    return wire::join(request.encode_extended(), payload);
  }
  static Bytes status(uint64_t offset, uint64_t length, std::vector<uint32_t> ids,
                      uint16_t flags = 0) {
    return with_payload(Command::block_status, offset, StatusFilter{length, ids}.encode(), flags);
  }
  void expect_done(const wire::Reply& reply, uint64_t offset = 0) {
    EXPECT_TRUE(reply.structured);
    EXPECT_TRUE(reply.done);
    EXPECT_EQ(reply.type, ChunkType::none);
    EXPECT_EQ(reply.cookie, 7u);
    EXPECT_EQ(reply.request_offset, offset);
    EXPECT_TRUE(reply.payload.empty());
  }
  void expect_alive(wire::Client& client) {
    expect_done(ask(client, ask_for(Command::flush, 0, 0)));
  }
};

TEST_F(SessionExtended, EveryCommandIsAnsweredInChunksThatNameTheRequestsOffset) {
  wire::Client& client = connect_extended();
  const Bytes payload = pattern(kCluster + 100);
  expect_done(ask(client, with_payload(Command::write, 512, payload)), 512);
  const auto chunks = ask_chunks(client, ask_for(Command::read, 512, payload.size()));
  EXPECT_EQ(content(chunks, 512, payload.size()), payload);
  for (const wire::Reply& chunk : chunks) EXPECT_EQ(chunk.request_offset, 512u);
  expect_done(ask(client, ask_for(Command::trim, kCluster, kCluster)), kCluster);
  expect_done(ask(client, ask_for(Command::write_zeroes, 0, kCluster, kFlagFua)));
  expect_done(ask(client, ask_for(Command::flush, 99, 0)), 99);
  const auto hole = ask_chunks(client, ask_for(Command::read, 0, kCluster));
  ASSERT_EQ(hole.size(), 1u);
  EXPECT_EQ(hole[0].type, ChunkType::offset_hole);
  const auto whole = ask_chunks(client, ask_for(Command::read, 512, 4096, kFlagDf));
  ASSERT_EQ(whole.size(), 1u);
  expect_done(ask(client, ask_for(Command::read, 10, 0)), 10);
}

TEST_F(SessionExtended, RefusalsSayWhyAndNameTheOffset) {
  wire::Client& client = connect_extended();
  const wire::Reply reply = ask(client, ask_for(Command::read, kSize, 1));
  expect_error(reply, WireError::einval);
  EXPECT_EQ(reply.request_offset, kSize);
  expect_error(ask(client, ask_for(Command{99}, 0, 0)), WireError::einval, "unknown command 99");
  expect_alive(client);
}

TEST_F(SessionExtended, RequestsAndPayloadsFollowOneAnotherWithoutAPause) {
  wire::Client& client = connect_extended(2);
  const Bytes payload = pattern(3 * kCluster);
  client.send(wire::join(with_payload(Command::write, 0, payload), ask_for(Command::flush, 0, 0),
                         status(0, kCluster, {1}), with_payload(Command::write, 0, payload),
                         ask_for(Command::trim, 0, 512)));
  unsigned done = 0;
  while (done < 5) done += client.receive_reply().done;
  expect_alive(client);
}

TEST_F(SessionExtended, WriteHasItsPayloadAlsoWithoutPayloadLen) {  // what qemu 10.0 sends
  wire::Client& client = connect_extended();
  memory_.preset(kCluster, kCluster, 0x55);
  // A guest chooses what it writes: here, requests to zero what lies elsewhere.
  Bytes payload;
  while (payload.size() < 512) {
    payload = wire::join(payload, ask_for(Command::write_zeroes, kCluster, kCluster));
  }
  expect_done(
      ask(client, wire::join(ask_for(Command::write, 4096, payload.size(), kFlagFua), payload)),
      4096);
  expect_alive(client);
  EXPECT_EQ(on_device(4096, payload.size()), payload);
  EXPECT_EQ(on_device(kCluster, kCluster), Bytes(kCluster, std::byte{0x55}));
  expect_done(ask(client, ask_for(Command::write, 8192, 0)), 8192);
  expect_alive(client);
}

TEST_F(SessionExtended, CompactRequestOnAnExtendedConnectionDrops) {  // X-1, C17
  wire::Client& client = connect_extended();
  client.send(wire::join(request(Command::flush, 0, 0), Bytes(4)));
  EXPECT_TRUE(client.ends());
}

TEST_F(SessionExtended, PayloadLenNeedsExtendedHeaders) {  // X-1, C15
  wire::Client& client = connect(true);
  expect_error(ask(client, write_request(0, pattern(512), kFlagPayloadLen)), WireError::einval,
               "unsupported flags 0x20 for WRITE");
  SessionTest::expect_alive(client);
}

TEST_F(SessionExtended, StatusRunsHaveSixtyFourBitsAlsoForShortRequests) {
  memory_.preset(kCluster, kCluster, 0x55);
  wire::Client& client = connect_extended(2);
  const auto chunks = ask_chunks(client, ask_for(Command::block_status, 0, 3 * kCluster));
  ASSERT_EQ(chunks.size(), 2u);
  for (const wire::Reply& chunk : chunks) EXPECT_EQ(chunk.type, ChunkType::block_status_ext);
  EXPECT_EQ(chunks[0].context_id(), 1u);
  EXPECT_EQ(io::load_be<uint32_t>(chunks[0].payload.data() + 4), 3u);
  EXPECT_EQ(chunks[0].runs(),
            (std::vector<StatusRun>{{kCluster, 3}, {kCluster, 0}, {kCluster, 3}}));
  EXPECT_EQ(chunks[1].runs(),
            (std::vector<StatusRun>{{kCluster, 0}, {kCluster, 2}, {kCluster, 0}}));
}

TEST_F(SessionExtended, FilterNamesTheContextsThatAreAnswered) {
  wire::Client& client = connect_extended(2);
  for (const uint32_t id : {1u, 2u}) {
    const auto chunks = ask_chunks(client, status(kCluster, kCluster, {id}));
    ASSERT_EQ(chunks.size(), 1u);
    EXPECT_EQ(chunks[0].context_id(), id);
    EXPECT_EQ(chunks[0].runs().at(0).length, kCluster);
    EXPECT_EQ(chunks[0].request_offset, kCluster);
  }
  EXPECT_EQ(ask_chunks(client, status(0, kCluster, {2, 1}, kFlagReqOne)).size(), 2u);
  expect_alive(client);
}

TEST_F(SessionExtended, BadFiltersAreInvalidAfterTheirPayload) {
  wire::Client& client = connect_extended(2);
  const auto filter = [](const Bytes& payload) {
    return with_payload(Command::block_status, 0, payload);
  };
  expect_error(ask(client, status(0, 512, {3})), WireError::einval,
               "BLOCK_STATUS names context 3, which was not selected");
  expect_error(ask(client, status(0, 512, {1, 1})), WireError::einval,
               "BLOCK_STATUS names context 1 twice");
  expect_error(ask(client, status(0, 512, {})), WireError::einval);
  expect_error(ask(client, status(0, 0, {1})), WireError::einval, "BLOCK_STATUS of length 0");
  expect_error(ask(client, status(kSize, 1, {1})), WireError::einval);
  for (const size_t size : {1, 7, 11, 13, 15, 17, 100'000}) {
    expect_error(ask(client, filter(Bytes(size))), WireError::einval);
  }
  expect_error(ask(client, filter({})), WireError::einval);
  expect_alive(client);
}

TEST_F(SessionExtended, FilterNeedsASelectedContext) {  // bit 12 was not offered
  wire::Client& client = connect_extended(0);
  expect_error(ask(client, status(0, 512, {1})), WireError::einval,
               "unsupported flags 0x20 for BLOCK_STATUS");
  expect_alive(client);
}

TEST_F(SessionExtended, PayloadThatNoCommandHasIsReadAndRefused) {
  wire::Client& client = connect_extended();
  for (const Command command : {Command::read, Command::flush, Command::trim, Command::cache,
                                Command::write_zeroes, Command::resize}) {
    expect_error(ask(client, with_payload(command, 0, pattern(100'000))), WireError::einval);
    expect_alive(client);
  }
}

TEST_F(SessionExtended, PayloadAboveSixtyFourMibDrops) {
  memory_.preset(0, kCluster, 0x55);
  wire::Client& client = connect_extended();
  Request request{kFlagPayloadLen, Command::trim, 7, 0, 0};
  request.payload_bytes = kPayloadBytesMax + 1;
  client.send(request.encode_extended());
  EXPECT_TRUE(client.ends());
  for (const uint16_t flags : {kFlagPayloadLen, uint16_t{0}}) {  // C3: a WRITE is told why
    for (const uint64_t length :
         {uint64_t{kPayloadBytesMax} + 1, uint64_t{1} << 40, ~uint64_t{0}}) {
      wire::Client& writer = connect_extended();
      request = {flags, Command::write, 7, 0, length};
      request.payload_bytes = length;
      writer.send(wire::join(request.encode_extended(), ask_for(Command::trim, 0, kCluster)));
      expect_error(writer.receive_reply(), WireError::einval);
      EXPECT_TRUE(writer.ends());
    }
  }
  EXPECT_EQ(on_device(0, kCluster), Bytes(kCluster, std::byte{0x55}));
}

TEST_F(SessionExtended, LengthsMayPassThirtyTwoBits) {
  wire::Client& client = connect_extended(1);
  const uint64_t huge = uint64_t{1} << 40;
  expect_error(ask(client, ask_for(Command::trim, 0, huge)), WireError::einval);
  expect_error(ask(client, ask_for(Command::write_zeroes, 0, huge)), WireError::enospc);
  expect_error(ask(client, ask_for(Command::block_status, 0, huge)), WireError::einval);
  expect_error(ask(client, ask_for(Command::read, 0, huge)), WireError::einval);
  expect_error(ask(client, ask_for(Command::read, ~uint64_t{0}, ~uint64_t{0})), WireError::einval);
  expect_alive(client);
}

TEST_F(SessionExtended, DisconnectEndsTheConnectionWhateverItsFlags) {  // C5
  wire::Client& client = connect_extended();
  client.send(ask_for(Command::disconnect, 5, 6, 0xffff));
  EXPECT_TRUE(client.ends());
}

TEST_F(SessionExtended, EndOfStreamInsideARequestIsAbnormalAtEveryByte) {  // D2
  const Bytes message = status(0, 512, {1, 2});
  for (size_t length = 1; length < message.size(); ++length) {
    wire::Client& client = connect_extended(2);
    const uint64_t before = exported_->counters().abnormal_ends;
    client.send(Bytes(message.begin(), message.begin() + static_cast<ptrdiff_t>(length)));
    client.finish_sending();
    EXPECT_TRUE(client.ends()) << length;
    EXPECT_EQ(exported_->counters().abnormal_ends, before + 1) << length;
  }
}

}  // namespace
}  // namespace nbd
