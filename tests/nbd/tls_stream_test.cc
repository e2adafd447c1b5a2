// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <random>
#include <thread>

#include "io/call_on.h"
#include "nbd/protocol.h"
#include "nbd/tls.h"
#include "tests/nbd/tls_peer.h"
#include "tests/nbd/wire.h"
#include "tests/support/ring_fixture.h"

// TLS as a stream, against a client of GnuTLS's own on a blocking socket.

namespace nbd {
namespace {

using wire::TlsPeer;

class TlsStreams : public support::RingTest {
 protected:
  TlsStreams() {
    settings_.psk = [this](const std::string& user) -> std::optional<Bytes> {
      if (user != "alice") return std::nullopt;
      return key_;
    };
  }
  ~TlsStreams() override {
    if (client_.joinable()) client_.join();
  }

  /// Lets `talk` be the client, on a thread of its own.
  void connect(std::function<void(TlsPeer&)> talk, const char* priority = wire::kTls13,
               const std::string& user = "alice") {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    socket_ = std::make_unique<io::Socket>(ring(), io::OwnedFd(fds[0]), "test client");
    server_ = TlsServer::make(settings_);
    stream_ = server_->accept(ring(), *socket_);
    client_ = std::thread([this, talk = std::move(talk), fd = fds[1], priority, user] {
      try {
        TlsPeer peer(io::OwnedFd(fd), user, key_, priority);
        talk(peer);
      } catch (const std::exception& failure) {
        trouble_ = failure.what();
      }
    });
  }
  void join() { client_.join(); }

  Bytes receive(size_t count) {
    Bytes bytes(count);
    EXPECT_TRUE(run(io::receive_exactly(*stream_, bytes)));
    return bytes;
  }
  void send(const Bytes& bytes) {
    const iovec piece = io::as_iovec(bytes);
    run(stream_->send({&piece, 1}));
  }
  Bytes random_bytes(size_t count) {
    Bytes bytes(count);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(chance_());
    return bytes;
  }

  std::mt19937_64 chance_{20};
  Bytes key_ = Bytes(32, std::byte{7});
  TlsSettings settings_;
  std::shared_ptr<const TlsServer> server_;
  std::unique_ptr<io::Socket> socket_;
  std::unique_ptr<TlsStream> stream_;
  std::thread client_;
  std::string trouble_;  // of the client; read after join()
};

TEST_F(TlsStreams, HandshakeSaysWhoTheClientIs) {  // T9, T10
  connect([](TlsPeer& peer) { peer.handshake(); });
  run(stream_->handshake());
  join();
  EXPECT_EQ(trouble_, "");
  EXPECT_EQ(stream_->user(), "alice");
  EXPECT_NE(stream_->description().find("AES-128-GCM"), std::string::npos)
      << stream_->description();
}

TEST_F(TlsStreams, UnknownUserIsRefusedAndToldSo) {  // T9, T7
  connect([](TlsPeer& peer) { peer.handshake(); }, wire::kTls13, "mallory");
  EXPECT_THROW(run(stream_->handshake()), ProtocolError);
  join();
  EXPECT_NE(trouble_, "");
}

TEST_F(TlsStreams, EndInsideTheHandshakeIsAFailure) {  // T7
  connect([](TlsPeer&) {});
  EXPECT_THROW(run(stream_->handshake()), ProtocolError);
}

TEST_F(TlsStreams, BytesArriveInOrderHoweverTheyAreCut) {
  const Bytes sent = random_bytes(5'000'003);
  connect([&](TlsPeer& peer) {
    peer.handshake();
    std::mt19937_64 chance(3);
    Bytes got(sent.size());
    for (size_t at = 0; at < sent.size();) {  // echoes what it hears
      const size_t most = std::min<size_t>(1 + chance() % 40'000, sent.size() - at);
      const size_t count = peer.receive(std::span(got).subspan(at, most));
      peer.send(std::span(got).subspan(at, count));
      at += count;
    }
  });
  run(stream_->handshake());
  Bytes back(sent.size());
  const auto body = [&](io::TaskScope& scope) -> io::Task<void> {
    const auto sending = [&]() -> io::Task<void> {
      std::mt19937_64 chance(4);
      for (size_t at = 0; at < sent.size();) {
        std::vector<iovec> pieces;  // small and large ones together, as replies are
        for (int count = 0; count < 5 && at < sent.size(); ++count) {
          const size_t length = std::min<size_t>(
              chance() % 2 == 0 ? chance() % 50 : chance() % 200'000, sent.size() - at);
          pieces.push_back(io::as_iovec(std::span(sent).subspan(at, length)));
          at += length;
        }
        co_await stream_->send(pieces);
      }
    };
    scope.spawn(sending());
    for (size_t at = 0; at < back.size();) {
      const size_t first = std::min<size_t>(1 + chance_() % 100'000, back.size() - at);
      const size_t second = std::min<size_t>(chance_() % 64, back.size() - at - first);
      const std::array<iovec, 2> into = {io::as_iovec(std::span(back).subspan(at, first)),
                                         io::as_iovec(std::span(back).subspan(at + first, second))};
      const size_t count = co_await stream_->receive(into);
      EXPECT_GT(count, 0u);
      if (count == 0) co_return;
      at += count;
    }
  };
  run(io::run_scoped(std::cref(body)));
  EXPECT_TRUE(back == sent);
  join();
  EXPECT_EQ(trouble_, "");
}

TEST_F(TlsStreams, KeyUpdatesAreAnswered) {
  connect([](TlsPeer& peer) {
    peer.handshake();
    Bytes word(1000, std::byte{1});
    for (int round = 0; round < 6; ++round) {
      peer.update_keys();
      peer.send(word);
      if (peer.receive(word) == 0) throw std::runtime_error("no answer");
    }
  });
  run(stream_->handshake());
  for (int round = 0; round < 6; ++round) send(receive(1000));
  join();
  EXPECT_EQ(trouble_, "");
}

TEST_F(TlsStreams, CloseNotifyEndsBothWays) {  // T12
  connect([](TlsPeer& peer) {
    peer.handshake();
    peer.finish();
    std::byte byte{};
    if (peer.receive({&byte, 1}) != 0) throw std::runtime_error("not the end");
  });
  run(stream_->handshake());
  Bytes byte(1);
  EXPECT_FALSE(run(io::receive_exactly(*stream_, byte)));
  EXPECT_FALSE(run(io::receive_exactly(*stream_, byte)));  // and stays the end
  run(stream_->finish_sending());
  join();
  EXPECT_EQ(trouble_, "") << "an end without close-notify is an error to GnuTLS";
}

TEST_F(TlsStreams, EndWithoutCloseNotifyIsAnEnd) {  // T12
  connect([](TlsPeer& peer) { peer.handshake(); });
  run(stream_->handshake());
  join();
  Bytes byte(1);
  EXPECT_FALSE(run(io::receive_exactly(*stream_, byte)));
}

TEST_F(TlsStreams, ForgedRecordsFailTheStream) {
  int fd = -1;
  connect([&](TlsPeer& peer) {
    peer.handshake();
    fd = gnutls_transport_get_int(peer.session());
    const Bytes forged = wire::from_hex("17 0303 0020");
    const Bytes rest(32, std::byte{0x55});
    static_cast<void>(::send(fd, forged.data(), forged.size(), MSG_NOSIGNAL));
    static_cast<void>(::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL));
    std::byte byte{};
    peer.receive({&byte, 1});
  });
  run(stream_->handshake());
  Bytes byte(1);
  EXPECT_THROW(run(io::receive_exactly(*stream_, byte)), std::system_error);
  stream_->abort();
}

TEST_F(TlsStreams, RenegotiationIsRefused) {
  connect(
      [](TlsPeer& peer) {
        peer.handshake();
        peer.handshake();  // a second one, in TLS 1.2
      },
      wire::kTls12);
  run(stream_->handshake());
  Bytes byte(1);
  EXPECT_THROW(run(io::receive_exactly(*stream_, byte)), std::system_error);
  stream_->abort();
}

TEST_F(TlsStreams, ConnectionGoesOnOnAnotherThread) {
  const Bytes sent = random_bytes(100'000);
  connect([&](TlsPeer& peer) {
    peer.handshake();
    peer.send(sent);
    Bytes got(sent.size());
    for (size_t at = 0; at < got.size();) at += peer.receive(std::span(got).subspan(at));
    if (got != sent) throw std::runtime_error("other bytes came back");
  });
  run(stream_->handshake());
  io::RingThread thread("elsewhere");
  const auto echo = [&]() -> io::Task<void> {
    auto socket = std::make_unique<io::Socket>(thread.ring(), socket_->release(), "test client");
    stream_->move_to(thread.ring(), std::move(socket));
    Bytes bytes(sent.size());
    EXPECT_TRUE(co_await io::receive_exactly(*stream_, bytes));
    const iovec piece = io::as_iovec(bytes);
    co_await stream_->send({&piece, 1});
    stream_.reset();
  };
  run(io::call_on(thread.ring(), ring(), std::cref(echo)));
  join();
  thread.stop();
  EXPECT_EQ(trouble_, "");
}

TEST_F(TlsStreams, CredentialsThatAreNoneAreNamed) {  // T8
  settings_.certificates = TlsCertificates{.ca = "x", .certificate = "y", .key = "z"};
  try {
    TlsServer::make(settings_);
    FAIL() << "made of nothing";
  } catch (const std::runtime_error& failure) {
    EXPECT_NE(std::string(failure.what()).find("ca-cert.pem"), std::string::npos);
  }
}

}  // namespace
}  // namespace nbd
