// SPDX-License-Identifier: Apache-2.0
#include "nbd/server.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "io/call_on.h"
#include "io/ring_thread.h"
#include "nbd/client.h"
#include "tests/nbd/wire.h"
#include "tests/support/memory_device.h"
#include "tests/support/ring_fixture.h"

namespace nbd {
namespace {

class ServerTest : public support::RingTest {
 protected:
  ServerTest() {
    first_ = add("first", runtime());
    second_ = add("second", runtime());
    settings_.drain_grace = std::chrono::milliseconds(100);
    settings_.handshake.option_patience = std::chrono::seconds(10);
  }
  ~ServerTest() override {
    if (server_) run(server_->stop());
    for (const auto& exported : all_) join(exported);
  }

  std::shared_ptr<Export> add(const std::string& name, io::Runtime home) {
    ExportSpec spec{.name = name};
    spec.close_grace = spec.linger = std::chrono::milliseconds(100);
    const auto exported = Export::make(std::move(spec), device_, home);
    table_.add(exported);
    all_.push_back(exported);
    return exported;
  }
  void join(const std::shared_ptr<Export>& exported) {
    const auto join = [&] { return exported->join(); };
    if (exported->home().executor.here()) {
      run(join());
    } else {
      run(io::call_on(exported->home().executor, ring(), std::cref(join)));
    }
  }

  Server& server() {
    if (!server_) server_ = std::make_unique<Server>(ring(), table_, settings_);
    return *server_;
  }
  uint16_t listen(const std::string& host = "127.0.0.1") {
    auto listener = io::Listener::tcp(ring(), {host, 0});
    const uint16_t port = listener->port();
    server().listen(std::move(listener));
    return port;
  }
  std::unique_ptr<wire::Client> dial(uint16_t port, const std::string& host = "127.0.0.1") {
    auto socket = run(io::connect_tcp(ring(), host, port));
    return std::make_unique<wire::Client>(ring(), std::move(socket));
  }
  static bool greeted(wire::Client& client) {
    return wire::to_hex(client.receive(18)) == "4e42444d4147494349484156454f50540003";
  }
  static OptionReply go(wire::Client& client, const std::string& name) {
    client.send(wire::option(Option::go, InfoRequest{name, {}}.encode()));
    for (;;) {
      const wire::OptionAnswer answer = client.receive_answer();
      if (answer.type != OptionReply::info) {
        text_ = answer.text();
        return answer.type;
      }
    }
  }
  static void say_hello(wire::Client& client) {
    EXPECT_TRUE(greeted(client));
    client.send(wire::from_hex("00000003"));
  }
  std::unique_ptr<wire::Client> connect(uint16_t port, const std::string& name,
                                        const std::string& host = "127.0.0.1") {
    auto client = dial(port, host);
    say_hello(*client);
    EXPECT_EQ(go(*client, name), OptionReply::ack);
    return client;
  }
  static WireError flush(wire::Client& client) {
    client.send(Request{0, Command::flush, 1, 0, 0}.encode());
    return client.receive_reply().error;
  }

  static inline std::string text_;
  ServerSettings settings_;
  support::MemoryDevice device_{1 << 20};
  ExportTable table_;
  std::vector<std::shared_ptr<Export>> all_;
  std::shared_ptr<Export> first_, second_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, ServesEveryExportByNameOnBothFamilies) {  // L1
  for (const char* host : {"127.0.0.1", "::1"}) {
    const uint16_t port = listen(host);
    EXPECT_EQ(flush(*connect(port, "first", host)), WireError::none);
    EXPECT_EQ(flush(*connect(port, "second", host)), WireError::none);
  }
}

TEST_F(ServerTest, RequestsSentTogetherWithGoAreServed) {  // H8
  const uint16_t port = listen();
  const auto client = dial(port);
  EXPECT_TRUE(greeted(*client));
  client->send(wire::join(
      wire::from_hex("00000003"), wire::option(Option::go, InfoRequest{"first", {}}.encode()),
      Request{0, Command::flush, 1, 0, 0}.encode(), Request{0, Command::flush, 2, 0, 0}.encode()));
  while (client->receive_answer().type != OptionReply::ack) continue;
  EXPECT_EQ(client->receive_reply().cookie, 1u);
  EXPECT_EQ(client->receive_reply().cookie, 2u);
}

TEST_F(ServerTest, SecondConnectionIsGreetedAtOnce) {  // Q1
  const uint16_t port = listen();
  const auto first = connect(port, "first");
  const auto second = connect(port, "first");
  EXPECT_EQ(flush(*second), WireError::none);
  EXPECT_EQ(flush(*first), WireError::none);
}

TEST_F(ServerTest, ConnectionMovesToTheRingOfItsExport) {
  io::RingThread thread("export");
  const auto far = add("far", thread.runtime());
  const uint16_t port = listen();
  {
    const auto client = connect(port, "far");
    const Bytes payload(100000, std::byte{7});
    client->send(wire::join(Request{0, Command::write, 3, 500, payload.size()}.encode(), payload));
    EXPECT_EQ(client->receive_reply().cookie, 3u);
    client->send(Request{0, Command::read, 4, 500, 100000}.encode());
    EXPECT_EQ(client->receive_reply(100000).payload, payload);
    EXPECT_EQ(far->counters().connections_now, 1u);
  }
  run(server().stop());
  EXPECT_EQ(far->counters().connections_now, 0u);
  join(far);
  table_.remove(*far);  // its thread goes before the server
  all_.pop_back();
}

TEST_F(ServerTest, ClientsOnSeveralConnectionsReadWhatTheOthersWrote) {  // P10, multi-conn
  constexpr size_t kBytes = 100'000;
  io::RingThread thread("export");
  const auto elsewhere = add("elsewhere", thread.runtime());
  const uint16_t port = listen();
  std::vector<std::unique_ptr<nbd::Client>> clients;
  for (const bool extended : {false, true, false, true}) {
    auto socket = run(io::connect_tcp(ring(), "127.0.0.1", port));
    clients.push_back(run(nbd::Client::open(
        runtime(), std::move(socket), {.export_name = "elsewhere", .extended_headers = extended})));
  }
  const auto content = [](size_t writer) {
    return Bytes(kBytes, static_cast<std::byte>(writer + 1));
  };
  const auto write = [&](size_t writer) -> io::Task<void> {
    const Bytes bytes = content(writer);
    co_await clients[writer]->write_from(writer * kBytes, bytes);
    co_await clients[writer]->flush();
  };
  io::TaskScope writers;
  for (size_t writer = 0; writer < clients.size(); ++writer) writers.spawn(write(writer));
  run(writers.join());
  for (size_t reader = 0; reader < clients.size(); ++reader) {
    const size_t writer = (reader + 1) % clients.size();
    Bytes bytes(kBytes);
    run(clients[reader]->read(writer * kBytes, bytes));
    EXPECT_EQ(bytes, content(writer));
  }
  for (const auto& client : clients) run(client->close());
  run(server().stop());
  join(elsewhere);
  table_.remove(*elsewhere);
  all_.pop_back();
}

TEST_F(ServerTest, PortOfAnExportServesItAlone) {  // L5, L8, O10
  const uint16_t port = server().open_port({"127.0.0.1", 0}, first_);
  EXPECT_EQ(flush(*connect(port, "first")), WireError::none);
  EXPECT_EQ(flush(*connect(port, "")), WireError::none);
  const auto wrong = dial(port);
  say_hello(*wrong);
  EXPECT_EQ(go(*wrong, "second"), OptionReply::err_unknown);
}

TEST_F(ServerTest, TakenPortIsReported) {  // L5
  const uint16_t port = server().open_port({"127.0.0.1", 0}, first_);
  EXPECT_THROW(server().open_port({"127.0.0.1", port}, second_), std::system_error);
}

TEST_F(ServerTest, ClosedPortIsFreeOnceItsConnectionsHaveEnded) {  // L7
  const uint16_t port = server().open_port({"127.0.0.1", 0}, first_);
  const auto client = connect(port, "first");
  first_->close();
  io::TaskScope closing;
  closing.spawn(server().close_port(port));
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(20)));
  EXPECT_THROW(dial(port), std::system_error);
  EXPECT_EQ(closing.running(), 1u);
  EXPECT_EQ(flush(*client), WireError::eshutdown);
  EXPECT_TRUE(client->ends());
  client->vanish();
  run(closing.join());
  EXPECT_EQ(server().open_port({"127.0.0.1", port}, second_), port);
  EXPECT_EQ(flush(*connect(port, "second")), WireError::none);
}

TEST_F(ServerTest, OldestHandshakeMakesRoomForANewClient) {  // H11
  settings_.handshakes_max = 3;
  const uint16_t port = listen();
  const auto served = connect(port, "first");
  std::vector<std::unique_ptr<wire::Client>> waiting;
  for (int count = 0; count < 4; ++count) {
    waiting.push_back(dial(port));
    say_hello(*waiting.back());
  }
  EXPECT_TRUE(waiting[0]->ends());
  EXPECT_EQ(go(*waiting[1], "first"), OptionReply::ack);
  EXPECT_EQ(go(*waiting[3], "first"), OptionReply::ack);
  EXPECT_EQ(flush(*served), WireError::none);
  EXPECT_EQ(server().counters().dropped, 1u);
}

TEST_F(ServerTest, FullServerRefusesPolitelyAndThenTurnsAway) {  // X2
  settings_.connections_max = 2;
  settings_.connections_excess_max = 1;
  const uint16_t port = listen();
  const auto one = connect(port, "first");
  const auto two = connect(port, "second");
  const auto three = dial(port);
  say_hello(*three);
  EXPECT_EQ(go(*three, "first"), OptionReply::err_policy);
  EXPECT_EQ(text_, "server already has 2 connections");
  const auto four = dial(port);
  EXPECT_TRUE(four->ends());
  one->vanish();
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(20)));
  EXPECT_EQ(go(*three, "first"), OptionReply::ack);
}

TEST_F(ServerTest, StopWithAHundredHandshakesDoesNotWaitForThem) {  // Q11, H11
  const uint16_t port = listen();
  std::vector<std::unique_ptr<wire::Client>> waiting;
  for (int count = 0; count < 100; ++count) waiting.push_back(dial(port));
  for (const auto& client : waiting) EXPECT_TRUE(greeted(*client));
  const io::SteadyTime start = ring().now();
  run(server().stop());
  EXPECT_LT(ring().now() - start, std::chrono::seconds(2));
}

TEST_F(ServerTest, DrainingServerAnswersShutdownThenCloses) {  // X10, O17
  const uint16_t port = listen();
  const auto served = connect(port, "first");
  const auto waiting = dial(port);
  say_hello(*waiting);
  io::TaskScope stopping;
  stopping.spawn(server().stop());
  EXPECT_EQ(flush(*served), WireError::eshutdown);
  EXPECT_EQ(go(*waiting, "first"), OptionReply::err_shutdown);
  EXPECT_TRUE(served->ends());
  EXPECT_TRUE(waiting->ends());
  EXPECT_THROW(dial(port), std::system_error);
  run(stopping.join());
}

TEST_F(ServerTest, ConnectionsThatVanishAtEveryByteLeaveNothingBehind) {  // Q11
  const uint16_t port = listen();
  const Bytes talk = wire::join(wire::from_hex("00000003"),
                                wire::option(Option::go, InfoRequest{"first", {3}}.encode()),
                                Request{0, Command::write, 1, 0, 20}.encode(), Bytes(20));
  for (size_t size = 0; size <= talk.size(); ++size) {
    const auto client = dial(port);
    client->send(Bytes(talk.begin(), talk.begin() + size));
    client->vanish();
  }
  EXPECT_EQ(flush(*connect(port, "first")), WireError::none);
  run(io::sleep(ring(), ring(), std::chrono::milliseconds(50)));
  EXPECT_EQ(first_->counters().connections_now, 0u);
  EXPECT_EQ(server().admission().connections, 0u);
}

}  // namespace
}  // namespace nbd
