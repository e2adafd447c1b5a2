// SPDX-License-Identifier: Apache-2.0
#include "nbd/client.h"

#include <gtest/gtest.h>

#include "nbd/client_handshake.h"
#include "nbd/session.h"
#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

// varve's client against varve's server, and against servers that lie.

namespace nbd {
namespace {

class ClientTest : public support::RingTest {
 protected:
  static constexpr uint64_t kSize = (48 << 20) + 1000;
  static constexpr uint32_t kCluster = 65536;
  using Verb = support::FaultyDevice::Verb;

  ClientTest() {
    exported_ = Export::make({.name = "disk", .description = "of a test"}, device_, runtime());
    table_.add(exported_);
  }
  ~ClientTest() override {
    device_.open_gate();
    if (client_) run(client_->close());
    client_.reset();
    run(serving_.join());
    run(exported_->join());
  }

  /// The client's end of a connection to the server.
  std::unique_ptr<io::Stream> connect() {
    auto [server, client] = wire::socket_pair(ring());
    serving_.spawn(serve(std::move(server)));
    return std::move(client);
  }
  Client& open(ClientOptions options) {
    if (client_) run(client_->close());
    options.export_name = "disk";
    client_ = run(Client::open(runtime(), connect(), std::move(options)));
    return *client_;
  }
  /// Once with each form of request and reply.
  template <class Body>
  void with_each_form(Body body) {
    for (const auto& [structured, extended] :
         {std::pair(false, false), std::pair(true, false), std::pair(true, true)}) {
      SCOPED_TRACE(fmt::format("structured {}, extended {}", structured, extended));
      Client& client = open({.structured_replies = structured, .extended_headers = extended});
      EXPECT_EQ(client.rules().structured_replies, structured);
      EXPECT_EQ(client.rules().extended_headers, extended);
      body(client);
    }
  }

  io::Buffer buffer(const Bytes& bytes) {
    io::Buffer made = runtime().buffers.acquire_over_budget(bytes.size());
    std::ranges::copy(bytes, made.data());
    return made;
  }
  Bytes read(Client& client, uint64_t offset, size_t length) {
    Bytes bytes(length, std::byte{0xee});
    run(client.read(offset, bytes));
    return bytes;
  }
  static Bytes pattern(size_t size, uint32_t state) {
    Bytes bytes(size);
    for (std::byte& byte : bytes) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<std::byte>(state >> 24);
    }
    return bytes;
  }
  template <class Call>
  int error_of(Call call) {
    try {
      run(call());
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    return 0;
  }

  support::MemoryDevice memory_{kSize, kCluster};
  support::FaultyDevice device_{memory_, ring()};
  Admission admission_;
  ExportTable table_;
  std::shared_ptr<Export> exported_;
  io::TaskScope serving_;
  std::unique_ptr<Client> client_;

 private:
  io::Task<void> serve(std::unique_ptr<io::Socket> stream) {
    Handshake handshake(ring(), ring(), *stream, Visibility::all(table_, "disk"), admission_);
    std::optional<Negotiated> negotiated = co_await handshake.run();
    if (!negotiated) co_return;
    const Bytes ahead(handshake.read_ahead().begin(), handshake.read_ahead().end());
    Session session(std::move(stream), std::move(*negotiated), ahead);
    co_await session.serve();
  }
};

TEST_F(ClientTest, KnowsTheExport) {
  Client& client = open({});
  EXPECT_EQ(client.size(), kSize);
  EXPECT_EQ(client.preferred_block_size(), kCluster);
  EXPECT_EQ(client.info().name, "disk");
  EXPECT_EQ(client.info().description, "of a test");
  EXPECT_EQ(client.info().payload_bytes_max, kPayloadBytesAdvertised);
  EXPECT_EQ(client.info().flags, 0x19ed);
  ASSERT_EQ(client.contexts().size(), 2u);
  EXPECT_EQ(client.contexts()[1].name, "qemu:allocation-depth");
}

TEST_F(ClientTest, ReadsWhatItWroteInEveryForm) {
  uint32_t seed = 0;
  with_each_form([&](Client& client) {
    const Bytes data = pattern(3 * kCluster + 77, ++seed);
    run(client.write(kCluster - 11, buffer(data)));
    EXPECT_EQ(read(client, kCluster - 11, data.size()), data);
    run(client.write_zeroes(kCluster, kCluster, io::ZeroMode::may_unmap));
    run(client.discard(3 * kCluster, 100));
    EXPECT_EQ(read(client, kCluster, kCluster), Bytes(kCluster));
    EXPECT_EQ(read(client, 3 * kCluster, 100), Bytes(100));
    const uint64_t flushes = memory_.flushes;
    run(client.flush());
    EXPECT_EQ(memory_.flushes, flushes + 1);
  });
}

TEST_F(ClientTest, SplitsWhatIsLongerThanOneRequestMayBe) {
  const Bytes data = pattern((33 << 20) + 5, 9);
  with_each_form([&](Client& client) {
    run(client.write_from(7, data));
    EXPECT_EQ(read(client, 7, data.size()), data);
    run(client.discard(0, kSize));
  });
}

TEST_F(ClientTest, HasManyRequestsInFlight) {
  with_each_form([&](Client& client) {
    const Bytes data = pattern(64 * 4096, 3);
    device_.shut_gate(Verb::write);
    io::TaskScope writes;
    for (size_t at = 0; at < data.size(); at += 4096) {
      writes.spawn(client.write_from(at, std::span(data).subspan(at, 4096)));
    }
    run(device_.until_waiting(64));
    device_.open_gate();
    run(writes.join());
    EXPECT_EQ(read(client, 0, data.size()), data);
  });
}

TEST_F(ClientTest, ErrorsCarryTheServersNumberAndTextAndTheConnectionStays) {
  with_each_form([&](Client& client) {
    const Bytes byte(1);
    EXPECT_EQ(error_of([&] { return client.write_from(kSize, byte); }), ENOSPC);
    try {
      Bytes into(10);
      run(client.read(kSize - 5, into));
      ADD_FAILURE() << "read past the end";
    } catch (const std::system_error& error) {
      EXPECT_EQ(error.code().value(), EINVAL);
      if (client.rules().structured_replies) {
        EXPECT_NE(std::string(error.what()).find("past the end of export"), std::string::npos);
      }
    }
    run(client.write_from(5, pattern(10, 1)));
    const auto fast = [&] { return client.write_zeroes(4, 2, io::ZeroMode::fast_or_fail); };
    EXPECT_EQ(error_of(fast), ENOTSUP);
    run(client.flush());
  });
}

TEST_F(ClientTest, DescribesExtentsFromBothContexts) {
  memory_.preset(kCluster, kCluster, 0x55);  // of the parent
  for (const bool extended : {false, true}) {
    Client& client = open({.extended_headers = extended});
    run(client.write_from(2 * kCluster, pattern(kCluster, 1)));
    const auto found = run(client.extents(0, 4 * kCluster, 100));
    const std::vector<io::Extent> expected = {
        {kCluster, true, 0}, {kCluster, false, 2}, {kCluster, false, 1}, {kCluster, true, 0}};
    ASSERT_EQ(found.size(), expected.size());
    for (size_t index = 0; index < found.size(); ++index) {
      EXPECT_EQ(found[index].length, expected[index].length) << index;
      EXPECT_TRUE(found[index].same_kind(expected[index])) << index;
    }
    EXPECT_EQ(run(client.extents(0, 4 * kCluster, 2)).size(), 2u);
  }
  const auto unknown = run(open({.contexts = {}}).extents(0, 4 * kCluster, 100));
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_FALSE(unknown[0].zero);
}

TEST_F(ClientTest, AsksForTheContextsItNames) {
  Client& client = open({});
  const uint32_t id = client.contexts()[1].id;
  const auto answers = run(client.block_status(0, kSize, 0, {id}));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].context_id, id);
  EXPECT_EQ(run(client.block_status(0, kSize)).size(), 2u);
}

TEST_F(ClientTest, RequestsUnderWayFailWhenTheServerGoesAway) {
  Client& client = open({});
  device_.shut_gate(Verb::flush);
  io::TaskScope flushing;
  int error = 0;
  const auto flush = [&]() -> io::Task<void> {
    try {
      co_await client.flush();
    } catch (const std::system_error& failure) {
      error = failure.code().value();
    }
  };
  flushing.spawn(flush());
  run(device_.until_waiting(1));
  exported_->close({}, std::chrono::milliseconds(1));
  device_.heal();
  // The answer is given, whichever is first; what follows finds no server.
  device_.open_gate();
  run(flushing.join());
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(100)));
  EXPECT_EQ(error_of([&] { return client.flush(); }), ECONNRESET);
  EXPECT_EQ(error_of([&] { return client.flush(); }), ECONNRESET);
}

TEST_F(ClientTest, ListsAndDescribesExports) {
  auto stream = connect();
  Inbox inbox(*stream);
  ClientHandshake handshake(*stream, inbox);
  run(handshake.greet());
  const auto listed = run(handshake.list());
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].name, "disk");
  EXPECT_EQ(listed[0].description, "of a test");
  EXPECT_TRUE(run(handshake.ask_for(Option::structured_reply)));
  EXPECT_FALSE(run(handshake.ask_for(Option::peek_export)));
  EXPECT_EQ(run(handshake.contexts(Option::list_meta_context, "disk", {})).size(), 2u);
  EXPECT_EQ(run(handshake.info(Option::info, "disk")).size, kSize);
  EXPECT_THROW(run(handshake.info(Option::info, "nobody")), ProtocolError);
  run(handshake.abort());
}

/// A server that says what the test wrote down, and then nothing more.
class LyingServer : public ClientTest {
 protected:
  static Bytes reply(Option option, OptionReply type, const Bytes& data = {}) {
    Bytes out;
    append_reply(out, option, type, data);
    return out;
  }
  static Bytes handshake(bool extended) {
    const auto greeting = Greeting::encode();
    const OptionReply answer = extended ? OptionReply::ack : OptionReply::err_unsup;
    return wire::join(
        greeting, reply(Option::extended_headers, answer),
        extended ? Bytes{} : reply(Option::structured_reply, OptionReply::ack),
        reply(Option::set_meta_context, OptionReply::meta_context,
              encode_meta_context(1, "base:allocation")),
        reply(Option::set_meta_context, OptionReply::ack),
        reply(Option::go, OptionReply::info, encode_info_export(kSize, 0x09ed)),
        reply(Option::go, OptionReply::info, encode_info_text(Info::name, "disk")),
        reply(Option::go, OptionReply::info, encode_info_block_size(1, kCluster, 32 << 20)),
        reply(Option::go, OptionReply::ack));
  }
  /// Opens the export, reads 8 KiB at 4096 (cookie 1), and describes them (cookie 2). Throws what
  /// the client throws.
  void talk(const Bytes& script) {
    auto [server, client_end] = wire::socket_pair(ring());
    const iovec piece = io::as_iovec(script);
    run(server->send({&piece, 1}));
    run(server->finish_sending());
    auto client = run(Client::open(runtime(), std::move(client_end), {}));
    std::exception_ptr failure;
    try {
      Bytes into(8192);
      run(client->read(4096, into));
      run(client->block_status(4096, 8192));
    } catch (...) {
      failure = std::current_exception();
    }
    run(client->close());
    if (failure) std::rethrow_exception(failure);
  }
  static Bytes chunk(bool extended, bool done, ChunkType type, uint64_t cookie,
                     const Bytes& payload, uint64_t offset = 4096) {
    const ChunkHeader header{done, type, cookie, payload.size(), offset};
    return extended ? wire::join(header.encode_extended(), payload)
                    : wire::join(header.encode(), payload);
  }
  static Bytes good_answers(bool extended) {
    const std::vector<StatusRun> runs = {{8192, 0}};
    return wire::join(
        chunk(extended, false, ChunkType::offset_data, 1,
              wire::join(encode_data_prefix(4096), Bytes(4096, std::byte{1}))),
        chunk(extended, true, ChunkType::offset_hole, 1, wire::join(encode_hole(8192, 4096))),
        extended
            ? chunk(true, true, ChunkType::block_status_ext, 2, encode_block_status_ext(1, runs))
            : chunk(false, true, ChunkType::block_status, 2, encode_block_status(1, runs)));
  }
};

TEST_F(LyingServer, IsBelievedWhenItTellsTheTruth) {
  for (const bool extended : {false, true}) {
    EXPECT_NO_THROW(talk(wire::join(handshake(extended), good_answers(extended))));
  }
}

TEST_F(LyingServer, MayStopAtEveryByte) {
  for (const bool extended : {false, true}) {
    const Bytes script = wire::join(handshake(extended), good_answers(extended));
    for (size_t length = 0; length<script.size(); length += length> 600 ? 97 : 1) {
      const Bytes cut(script.begin(), script.begin() + static_cast<ptrdiff_t>(length));
      EXPECT_ANY_THROW(talk(cut)) << length;
    }
  }
}

TEST_F(LyingServer, WithOneByteChangedCannotHurt) {
  for (const bool extended : {false, true}) {
    const Bytes script = wire::join(handshake(extended), good_answers(extended));
    for (size_t at = 0; at<script.size(); at += at> 600 ? 101 : 1) {
      for (const std::byte flip : {std::byte{0x01}, std::byte{0x80}}) {
        Bytes changed = script;
        changed[at] ^= flip;
        try {
          talk(changed);  // some bytes are free: names, flags, data
        } catch (const std::exception&) {
        }
      }
    }
  }
}

TEST_F(LyingServer, IsCaughtInEveryLie) {
  for (const bool extended : {false, true}) {
    const auto answer = [&](const Bytes& bytes) { return wire::join(handshake(extended), bytes); };
    const auto one = [&](ChunkType type, const Bytes& payload, uint64_t cookie = 1) {
      return answer(chunk(extended, true, type, cookie, payload));
    };
    const auto data = [&](uint64_t offset, size_t size) {
      return wire::join(encode_data_prefix(offset), Bytes(size));
    };
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(4096, 8192), 3)), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(4096, 8193))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(4095, 8192))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(~uint64_t{0}, 2))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(4096, 100))), ProtocolError);  // not all
    EXPECT_THROW(talk(one(ChunkType::offset_data, data(4096, 0))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::offset_hole, Bytes(11))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::none, {})), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::none, Bytes(1))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType{77}, {})), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::block_status, Bytes(12))), ProtocolError);
    EXPECT_THROW(talk(one(ChunkType::error, Bytes(6))), ProtocolError);  // its number is 0
    EXPECT_THROW(talk(one(ChunkType::error, encode_error(WireError::eio, "so"))),
                 std::system_error);
    EXPECT_THROW(talk(answer(wire::join(SimpleReply{WireError::none, 1}.encode(), Bytes(8192)))),
                 ProtocolError);
  }
  const Bytes elsewhere =
      chunk(true, true, ChunkType::offset_hole, 1, wire::join(encode_hole(4096, 8192)), 4097);
  EXPECT_THROW(talk(wire::join(handshake(true), elsewhere)), ProtocolError);
}

TEST_F(LyingServer, ThatAnswersBeforeItHasReadKeepsTheBytesLent) {
  auto [server, client_end] = wire::socket_pair(ring());
  const Bytes script = wire::join(handshake(true), chunk(true, true, ChunkType::none, 1, {}, 0));
  const iovec piece = io::as_iovec(script);
  run(server->send({&piece, 1}));
  const auto client = run(Client::open(runtime(), std::move(client_end), {}));
  const Bytes bytes(8 << 20, std::byte{7});
  bool done = false;
  const auto write = [&]() -> io::Task<void> {
    co_await client->write_from(0, bytes);
    done = true;
  };
  io::TaskScope writing;
  writing.spawn(write());
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(20)));
  EXPECT_FALSE(done) << "the kernel still reads the bytes";
  server->abort();
  run(writing.join());
  EXPECT_TRUE(done);
  run(client->close());
}

TEST(Replies, ThatAreCutShortOrTooLongAreRefused) {
  const auto refuse_all_but = [](const Bytes& whole, auto decode) {
    for (size_t length = 0; length <= whole.size() + 1; ++length) {
      Bytes cut = whole;
      cut.resize(length);
      if (length == whole.size()) {
        EXPECT_NO_THROW(decode(cut));
      } else {
        EXPECT_THROW(decode(cut), ProtocolError) << length;
      }
    }
  };
  const std::vector<StatusRun> runs = {{512, 0}, {1024, 3}};
  refuse_all_but(wire::join(encode_hole(512, 512)), HolePayload::decode);
  refuse_all_but(encode_error(WireError::eio, "text"), ErrorPayload::decode);
  refuse_all_but(encode_block_status_ext(1, runs), StatusPayload::decode_ext);
  const auto take = [](const Bytes& data) { ExportInfo().take(data); };
  refuse_all_but(encode_info_export(512, 1), take);
  refuse_all_but(encode_info_block_size(1, 2, 3), take);
  EXPECT_THROW(StatusPayload::decode(encode_block_status(1, {})), ProtocolError);
  EXPECT_THROW(StatusPayload::decode(wire::from_hex("00000001 00000000 00000000")), ProtocolError);
  EXPECT_THROW(StatusPayload::decode(wire::from_hex("00000001 00000001 000000")), ProtocolError);
  EXPECT_THROW(ListedExport::decode(wire::from_hex("00000003 6162")), ProtocolError);
  EXPECT_THROW(ListedExport::decode(wire::from_hex("ffffffff 6162")), ProtocolError);
  EXPECT_THROW(OfferedContext::decode(wire::from_hex("000001")), ProtocolError);
}

TEST(Replies, ReadBackWhatTheServerEncodes) {
  const ListedExport listed = ListedExport::decode(encode_server("name", "what it is"));
  EXPECT_EQ(listed.name, "name");
  EXPECT_EQ(listed.description, "what it is");
  EXPECT_EQ(OfferedContext::decode(encode_meta_context(7, "a:b")).name, "a:b");
  const auto error = ErrorPayload::decode(encode_error_offset(WireError::enospc, "full", 512));
  EXPECT_EQ(error.error, WireError::enospc);
  EXPECT_EQ(error.text, "full");
  const std::vector<StatusRun> runs = {{512, 0}, {1024, 3}};
  EXPECT_EQ(StatusPayload::decode(encode_block_status(9, runs)).runs, runs);
  EXPECT_EQ(StatusPayload::decode_ext(encode_block_status_ext(9, runs)).runs, runs);
}

}  // namespace
}  // namespace nbd
