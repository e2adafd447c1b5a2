// SPDX-License-Identifier: Apache-2.0
#include "tests/nbd/session_fixture.h"

// Every command with both kinds of reply: what is refused, in which order, and what goes on after.

namespace nbd {
namespace {

/// Runs each test with simple and with structured replies.
class SessionCommands : public SessionTest, public ::testing::WithParamInterface<bool> {
 protected:
  wire::Client& connect_either() { return connect(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Replies, SessionCommands, ::testing::Bool(),
                         [](const auto& each) { return each.param ? "Structured" : "Simple"; });

TEST_P(SessionCommands, WriteIsReadableAtOnceOnEveryConnection) {  // C2, P1
  wire::Client& writer = connect_either();
  wire::Client& reader = connect(true);
  const Bytes data = pattern(5000);
  const wire::Reply reply = ask(writer, write_request(70000, data, 0, 99));
  EXPECT_FALSE(reply.structured);
  EXPECT_EQ(reply.error, WireError::none);
  EXPECT_EQ(reply.cookie, 99u);
  EXPECT_EQ(content(ask_chunks(reader, request(Command::read, 70000, 5000)), 70000, 5000), data);
  EXPECT_EQ(memory_.flushes, 0u);
}

TEST_P(SessionCommands, ReadPastTheEndIsInvalid) {  // C1, Q4
  wire::Client& client = connect_either();
  for (const auto& [offset, length] : std::vector<std::pair<uint64_t, uint32_t>>{
           {kSize, 1}, {kSize - 1, 2}, {~uint64_t{0}, 2}, {~uint64_t{0} - 10, 0xffffffff}}) {
    expect_error(ask(client, request(Command::read, offset, length)), WireError::einval);
  }
  expect_alive(client);
}

TEST_P(SessionCommands, WritesPastTheEndFindNoSpace) {  // C2, C9, C7, Q4
  wire::Client& client = connect_either();
  expect_error(
      ask(client, write_request(kSize - 1, Bytes(2))), WireError::enospc,
      fmt::format("WRITE @{}+2 is past the end of export \"disk\" ({} bytes)", kSize - 1, kSize));
  expect_error(ask(client, request(Command::write_zeroes, kSize, 1)), WireError::enospc);
  expect_error(ask(client, request(Command::trim, kSize, 1)), WireError::einval);
  expect_alive(client);
  EXPECT_EQ(exported_->failure(), nullptr);
}

TEST_P(SessionCommands, OffsetsThatWrapAroundConsumeTheirPayload) {  // C2
  wire::Client& client = connect_either();
  expect_error(ask(client, write_request(~uint64_t{0} - 3, Bytes(70000))), WireError::enospc);
  expect_error(ask(client, request(Command::write_zeroes, ~uint64_t{0}, 0xffffffff)),
               WireError::enospc);
  expect_alive(client);
}

TEST_P(SessionCommands, ReadOnlyExportTakesNoWrites) {  // C2, C7, C9, Q4
  make_export({.kind = ExportKind::point, .read_only = true});
  wire::Client& client = connect_either();
  for (const Bytes& message : {write_request(0, Bytes(512)), request(Command::trim, 0, 512),
                               request(Command::write_zeroes, 0, 512)}) {
    expect_error(ask(client, message), WireError::eperm, "export \"disk\" is read-only");
  }
  // The order of the checks: EPERM comes before the range, the flags before EPERM.
  expect_error(ask(client, write_request(kSize, Bytes(1))), WireError::eperm);
  expect_error(ask(client, request(Command::write_zeroes, 0, 512, kFlagFastZero)),
               WireError::einval, "unsupported flags 0x10 for WRITE_ZEROES");  // C12, Q12
  expect_alive(client);
}

TEST_P(SessionCommands, SixtyFourMibAreTaken) {  // C3, Q3
  wire::Client& client = connect_either();
  for (const size_t size : {33 << 20, 64 << 20}) {
    const Bytes data = pattern(size, size);
    EXPECT_EQ(ask(client, write_request(500, data)).error, WireError::none);
    EXPECT_EQ(on_device(500, size), data);
    expect_alive(client);
  }
}

TEST_P(SessionCommands, LongerWriteIsRefusedAndThenTheStreamEnds) {  // C3
  wire::Client& client = connect_either();
  client.send(request(Command::write, 0, (64 << 20) + 1));
  client.send(Bytes(100000));
  expect_error(client.receive_reply(), WireError::einval,
               "WRITE of 67108865 bytes is longer than 67108864");
  EXPECT_TRUE(client.ends());
  EXPECT_TRUE(memory_.write_sizes.empty());
}

TEST_P(SessionCommands, DisconnectEndsTheStreamAfterWhatIsUnderWay) {  // C5
  wire::Client& client = connect_either();
  device_.shut_gate(Verb::flush);
  client.send(request(Command::flush, 0, 0, 0, 1));
  client.send(request(Command::disconnect, 9, 9, 0xff, 2));
  run(device_.until_waiting(1));
  EXPECT_EQ(sessions_.running(), 1u);
  device_.open_gate();
  EXPECT_EQ(client.receive_reply().cookie, 1u);
  EXPECT_TRUE(client.ends());
  run(sessions_.join());
  EXPECT_EQ(exported_->counters().abnormal_ends, 0u);
}

TEST_P(SessionCommands, FlushReachesTheDeviceAndIgnoresItsRange) {  // C6, Q14
  wire::Client& client = connect_either();
  EXPECT_EQ(ask(client, request(Command::flush, 0, 0)).error, WireError::none);
  EXPECT_EQ(memory_.flushes, 1u);
  EXPECT_EQ(ask(client, request(Command::flush, ~uint64_t{0}, 77, kFlagFua)).error,
            WireError::none);
  EXPECT_EQ(memory_.flushes, 2u);
}

TEST_P(SessionCommands, FuaFlushesBeforeTheReply) {  // C2, C7, C9
  wire::Client& client = connect_either();
  uint64_t flushes = 0;
  for (const Bytes& message :
       {write_request(0, Bytes(512), kFlagFua), request(Command::trim, 0, 512, kFlagFua),
        request(Command::write_zeroes, 0, 512, kFlagFua)}) {
    EXPECT_EQ(ask(client, message).error, WireError::none);
    EXPECT_EQ(memory_.flushes, ++flushes);
  }
}

TEST_P(SessionCommands, TrimAndWriteZeroesReadAsZeroesOverParentData) {  // C7, C9, Q7, Q21
  memory_.preset(0, 1 << 20, 0x55);
  wire::Client& client = connect_either();
  EXPECT_EQ(ask(client, request(Command::trim, 100, 200000)).error, WireError::none);
  EXPECT_EQ(ask(client, request(Command::write_zeroes, 300001, 70001)).error, WireError::none);
  EXPECT_EQ(on_device(100, 200000), Bytes(200000));
  EXPECT_EQ(on_device(300001, 70001), Bytes(70001));
  EXPECT_EQ(on_device(0, 100), Bytes(100, std::byte{0x55}));
  EXPECT_EQ(on_device(200100, 1000), Bytes(1000, std::byte{0x55}));
  EXPECT_EQ(exported_->counters().bytes_zeroed, 270001u);
}

TEST_P(SessionCommands, WriteZeroesTakesAnyLength) {  // C9
  support::MemoryDevice huge(uint64_t{5} << 30);
  run(exported_->join());
  exported_ = Export::make({.name = "disk"}, huge, runtime());
  wire::Client& client = connect_either();
  EXPECT_EQ(ask(client, request(Command::write_zeroes, 4096, 0xffffffff)).error, WireError::none);
  expect_alive(client);
  clients_.clear();
  run(sessions_.join());
  run(exported_->join());
  make_export({});
}

TEST_P(SessionCommands, FastZeroIsDoneOrRefusedWithoutAChange) {  // C10, C11
  memory_.preset(0, 1 << 20, 0x55);
  wire::Client& client = connect_either();
  EXPECT_EQ(ask(client, request(Command::write_zeroes, 0, 65536, kFlagFastZero)).error,
            WireError::none);
  expect_error(ask(client, request(Command::write_zeroes, 65536, 100, kFlagFastZero)),
               WireError::enotsup);
  EXPECT_EQ(on_device(65536, 100), Bytes(100, std::byte{0x55}));
  expect_error(ask(client, request(Command::write_zeroes, 0, 65536, kFlagFastZero | kFlagNoHole)),
               WireError::enotsup);
  EXPECT_EQ(exported_->failure(), nullptr);
  expect_alive(client);
}

TEST_P(SessionCommands, NoHoleKeepsSpaceAllocated) {  // C11
  wire::Client& client = connect_either();
  EXPECT_EQ(ask(client, request(Command::write_zeroes, 0, 65536, kFlagNoHole)).error,
            WireError::none);
  const auto extents = run(memory_.extents(0, 65536, 1));
  EXPECT_FALSE(extents[0].zero);
}

TEST_P(SessionCommands, CacheAndUnknownCommandsAreRefused) {  // C8, C14
  wire::Client& client = connect_either();
  expect_error(ask(client, request(Command::cache, 0, 512)), WireError::einval,
               "command CACHE is not supported");
  for (const uint16_t number : {8, 9, 77, 65535}) {
    expect_error(ask(client, request(Command{number}, 0, 512)), WireError::einval,
                 fmt::format("unknown command {}", number));
  }
  expect_alive(client);
}

TEST_P(SessionCommands, UnknownFlagsAreRefusedAndThePayloadConsumed) {  // C15
  wire::Client& client = connect_either();
  expect_error(ask(client, write_request(0, Bytes(70000), 0x8002)), WireError::einval,
               "unsupported flags 0x8002 for WRITE");
  expect_error(ask(client, request(Command::read, 0, 1, kFlagReqOne)), WireError::einval);
  expect_error(ask(client, request(Command::trim, 0, 1, kFlagNoHole)), WireError::einval);
  expect_error(ask(client, request(Command::write_zeroes, 0, 1, kFlagDf)), WireError::einval);
  expect_error(ask(client, request(Command::flush, 0, 0, kFlagDf)), WireError::einval);
  EXPECT_TRUE(memory_.write_sizes.empty());
  expect_alive(client);
}

TEST_P(SessionCommands, LengthZeroSucceedsWithoutEffectUpToTheEnd) {  // C16, Q14
  wire::Client& client = connect_either();
  for (const Command command :
       {Command::read, Command::write, Command::trim, Command::write_zeroes}) {
    for (const uint64_t offset : {uint64_t{0}, kSize}) {
      const wire::Reply reply = ask(client, request(command, offset, 0));
      EXPECT_EQ(reply.error, WireError::none) << command_name(command);
      if (GetParam() && command == Command::read) {
        EXPECT_EQ(reply.type, ChunkType::none);
        EXPECT_TRUE(reply.done);
      }
    }
    const bool no_space = command == Command::write || command == Command::write_zeroes;
    expect_error(ask(client, request(command, kSize + 1, 0)),
                 no_space ? WireError::enospc : WireError::einval);
  }
  EXPECT_TRUE(memory_.write_sizes.empty());
}

TEST_P(SessionCommands, WrongMagicEndsTheStreamWithoutAReply) {  // C17, Q5
  wire::Client& client = connect_either();
  Bytes broken = request(Command::flush, 0, 0);
  broken[0] ^= std::byte{1};
  client.send(wire::join(broken, request(Command::flush, 0, 0)));
  EXPECT_TRUE(client.ends());
  run(sessions_.join());
  EXPECT_EQ(exported_->counters().abnormal_ends, 1u);
}

TEST_P(SessionCommands, CookiesAreEchoedAsSent) {
  wire::Client& client = connect_either();
  for (const uint64_t cookie : {uint64_t{0}, ~uint64_t{0}, uint64_t{0x0123456789abcdef}}) {
    EXPECT_EQ(ask(client, request(Command::flush, 0, 0, 0, cookie)).cookie, cookie);
    EXPECT_EQ(ask(client, request(Command::cache, 0, 0, 0, cookie)).cookie, cookie);
  }
}

TEST_P(SessionCommands, StorageErrorsArriveAsFewNumbersWithoutServerPaths) {  // H12
  make_export({.kind = ExportKind::temporary});
  wire::Client& client = connect_either();
  for (const auto& [error, on_wire] :
       std::vector<std::pair<int, WireError>>{{ENOSPC, WireError::enospc},
                                              {EDQUOT, WireError::enospc},
                                              {EROFS, WireError::eperm},
                                              {EIO, WireError::eio},
                                              {ENOTSUP, WireError::eio},
                                              {EBADF, WireError::eio}}) {
    device_.fail(Verb::write, error);
    const wire::Reply reply = ask(client, write_request(4096, Bytes(512)));
    expect_error(reply, on_wire);
    if (reply.structured) {
      EXPECT_EQ(reply.error_text().find("/secret"), std::string::npos);
      EXPECT_NE(reply.error_text().find("disk.qcow2 @4096+512"), std::string::npos);
    }
  }
  device_.heal();
  expect_alive(client);
}

TEST_P(SessionCommands, RequestsAreCountedByCommandAndResult) {
  wire::Client& client = connect_either();
  ask(client, write_request(0, Bytes(1000)));
  ask(client, write_request(kSize, Bytes(1)));
  ask(client, request(Command{99}, 0, 0));
  expect_alive(client);
  const Counters& counters = exported_->counters();
  EXPECT_EQ(counters.requests[1][0], 1u);
  EXPECT_EQ(counters.requests[1][Counters::result_index(WireError::enospc)], 1u);
  EXPECT_EQ(counters.requests[8][Counters::result_index(WireError::einval)], 1u);
  EXPECT_EQ(counters.bytes_received, 1000u);
  EXPECT_GT(counters.last_request_wall_ns, 0u);
  EXPECT_EQ(counters.in_flight_bytes, 0u);
}

}  // namespace
}  // namespace nbd
