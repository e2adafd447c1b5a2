// SPDX-License-Identifier: Apache-2.0
#include "io/socket.h"

#include <fcntl.h>

#include <filesystem>
#include <thread>

#include "io/listener.h"
#include "tests/support/ring_fixture.h"

namespace io {
namespace {

class Sockets : public support::RingTest {
 protected:
  Sockets() {
    std::string pattern = std::filesystem::temp_directory_path() / "varve-io-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~Sockets() override { std::filesystem::remove_all(directory_); }

  /// Sends 3 MiB in many pieces and reads it back in others at the far end.
  Task<void> exchange(Listener& listener, Task<std::unique_ptr<Socket>> connecting) {
    const auto client = co_await std::move(connecting);
    const auto server = co_await listener.accept();
    std::vector<std::byte> sent(3 << 20);
    for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<std::byte>(i * 7 >> 3);
    std::vector<std::byte> received(sent.size());
    const auto send = [&]() -> Task<void> {
      std::vector<iovec> pieces;
      for (size_t at = 0; at < sent.size(); at += 1024) {
        pieces.push_back(as_iovec(std::span(sent).subspan(at, 1024)));
      }
      co_await client->send(pieces);
      co_await client->finish_sending();
    };
    const auto body = [&](TaskScope& scope) -> Task<void> {
      scope.spawn(send());
      EXPECT_TRUE(co_await receive_exactly(*server, received));
      std::byte more{};
      EXPECT_FALSE(co_await receive_exactly(*server, {&more, 1}));
    };
    co_await run_scoped(body);
    EXPECT_EQ(sent, received);
  }
  std::string directory_;
};

TEST_F(Sockets, CarryBytesOverTcpOnBothFamilies) {
  for (const char* host : {"127.0.0.1", "::1"}) {
    const auto listener = Listener::tcp(ring(), {host, 0});
    EXPECT_GT(listener->port(), 0);
    run(exchange(*listener, connect_tcp(ring(), host, listener->port())));
  }
}

TEST_F(Sockets, CarryBytesOverUnixSocketsOfMode0660) {
  const std::string path = directory_ + "/socket";
  {
    const auto listener = Listener::unix_socket(ring(), path);
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0660));
    run(exchange(*listener, connect_unix(ring(), path)));
  }
  EXPECT_FALSE(std::filesystem::exists(path)) << "the socket file goes with its listener";
}

TEST_F(Sockets, AnAddressThatIsGivenUpWithinTheStartsPatienceIsTaken) {
  const std::string path = directory_ + "/socket";
  auto old_unix = Listener::unix_socket(ring(), path);
  auto old_tcp = Listener::tcp(ring(), {"127.0.0.1", 0});
  const uint16_t port = old_tcp->port();
  std::thread dying([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    old_unix.reset();
    old_tcp.reset();
  });
  EXPECT_EQ(Listener::unix_socket(ring(), path, ListeningSocket::kStartPatience)->address(), path);
  EXPECT_EQ(Listener::tcp(ring(), {"127.0.0.1", port}, ListeningSocket::kStartPatience)->port(),
            port);
  dying.join();
}

TEST_F(Sockets, AStaleSocketFileIsReplacedAndALiveOneIsNot) {
  const std::string path = directory_ + "/socket";
  {
    const auto stale = Listener::unix_socket(ring(), path);
    std::filesystem::create_hard_link(path, path + ".kept");
  }
  std::filesystem::rename(path + ".kept", path);
  const auto live = Listener::unix_socket(ring(), path);
  EXPECT_THROW(Listener::unix_socket(ring(), path), std::system_error);
}

TEST_F(Sockets, TheSocketOfANewerServerStaysWhenAnOlderOneEnds) {
  const std::string path = directory_ + "/socket";
  auto older = Listener::unix_socket(ring(), path);
  older->close();
  const auto newer = Listener::unix_socket(ring(), path);  // nobody listens on the older one
  older.reset();
  ASSERT_TRUE(std::filesystem::exists(path));
  run(exchange(*newer, connect_unix(ring(), path)));
}

TEST_F(Sockets, ATakenPortIsRefusedByName) {
  const auto first = Listener::tcp(ring(), {"127.0.0.1", 0});
  try {
    Listener::tcp(ring(), {"127.0.0.1", first->port()});
    FAIL() << "two listeners on one port";
  } catch (const std::system_error& failure) {
    EXPECT_EQ(failure.code().value(), EADDRINUSE);
    EXPECT_NE(std::string(failure.what()).find(first->address()), std::string::npos);
  }
}

TEST_F(Sockets, ClosingAListenerEndsThePendingAccept) {
  const auto listener = Listener::tcp(ring(), {"127.0.0.1", 0});
  const auto body = [&](TaskScope& scope) -> Task<void> {
    const auto wait = [&]() -> Task<void> { EXPECT_EQ(co_await listener->accept(), nullptr); };
    const auto waiting = wait;
    scope.spawn(waiting());
    co_await sleep(ring(), ring(), std::chrono::milliseconds(2));
    listener->close();
    co_await scope.join();
  };
  run(run_scoped(body));
}

TEST_F(Sockets, ClosingAnAdoptedListenerLeavesTheSocketListening) {  // L4
  const std::string path = directory_ + "/socket";
  const auto made = Listener::unix_socket(ring(), path);
  for (int round = 0; round < 2; ++round) {
    // As a service manager hands it over: the same socket, and not blocking.
    const int passed = ::dup(made->descriptor());
    ::fcntl(passed, F_SETFL, O_NONBLOCK);
    const auto adopted = Listener::adopt(ring(), OwnedFd(passed));
    EXPECT_EQ(adopted->address(), path);
    const auto body = [&](TaskScope& scope) -> Task<void> {
      co_await exchange(*adopted, connect_unix(ring(), path));
      const auto wait = [&]() -> Task<void> { EXPECT_EQ(co_await adopted->accept(), nullptr); };
      const auto waiting = wait;
      scope.spawn(waiting());
      co_await sleep(ring(), ring(), std::chrono::milliseconds(2));
      adopted->close();
      co_await scope.join();
    };
    run(run_scoped(body));
  }
  // A client that comes between two servers waits for the next one.
  const auto early = run(connect_unix(ring(), path));
  EXPECT_NE(run(made->accept()), nullptr);
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(Sockets, AbortWakesAPendingReceive) {
  const auto listener = Listener::tcp(ring(), {"127.0.0.1", 0});
  const auto body = [&](TaskScope& scope) -> Task<void> {
    const auto client = co_await connect_tcp(ring(), "127.0.0.1", listener->port());
    const auto server = co_await listener->accept();
    std::byte byte{};
    const auto receive = [&]() -> Task<void> {
      EXPECT_FALSE(co_await receive_exactly(*server, {&byte, 1}));
    };
    scope.spawn(receive());
    co_await sleep(ring(), ring(), std::chrono::milliseconds(2));
    server->abort();
    co_await scope.join();
  };
  run(run_scoped(body));
}

TEST(Addresses, AreParsedAndRefusedWithASentence) {
  EXPECT_EQ(to_text(parse_host_port("127.0.0.1:10809")), "127.0.0.1:10809");
  EXPECT_EQ(to_text(parse_host_port("[::1]:0")), "[::1]:0");
  for (const char* wrong : {"", "10809", ":1", "host:", "host:70000", "host:1x"}) {
    EXPECT_THROW(parse_host_port(wrong), std::invalid_argument) << wrong;
  }
  EXPECT_THROW(SocketAddress::tcp("example.org", 1), std::invalid_argument);
  EXPECT_TRUE(SocketAddress::tcp("::1", 1).is_loopback());
  EXPECT_FALSE(SocketAddress::tcp("10.0.0.1", 1).is_loopback());
}

}  // namespace
}  // namespace io
