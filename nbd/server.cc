// SPDX-License-Identifier: Apache-2.0
#include "nbd/server.h"

#include <algorithm>
#include <cassert>
#include <set>
#include <system_error>

#include "io/call_on.h"
#include "io/log.h"

namespace nbd {

struct Server::ListenerState {
  ListenerState(std::unique_ptr<io::Listener> listener, Visibility visible, TlsAccess tls)
      : listener(std::move(listener)), visible(std::move(visible)), tls(std::move(tls)) {}

  std::unique_ptr<io::Listener> listener;
  Visibility visible;
  TlsAccess tls;
  uint16_t port_of_export = 0;  // 0 for a main listener
  io::TaskScope accepting;
  io::TaskScope connections;
};

struct Server::Client {
  io::Stream* shaking_hands = nullptr;  // null in transmission
  std::shared_ptr<Export> served{};
};

struct Server::Connection {
  std::unique_ptr<io::Socket> socket;
  std::unique_ptr<TlsStream> tls{};  // over the socket, when negotiated
  Bytes read_ahead{};

  /// The stream of the transmission phase, all of it on `ring`.
  std::unique_ptr<io::Stream> stream_on(io::Ring& ring, std::unique_ptr<io::Socket> transport) {
    if (!tls) return transport;
    tls->move_to(ring, std::move(transport));
    return std::move(tls);
  }
};

namespace {

/// The transmission phase, on the ring of the export.
io::Task<void> serve_session(std::unique_ptr<io::Stream> stream, Negotiated negotiated,
                             Bytes read_ahead, SessionSettings settings) {
  Session session(std::move(stream), std::move(negotiated), read_ahead, settings);
  co_await session.serve();
}

}  // namespace

Server::Server(io::Ring& ring, const ExportTable& exports, ServerSettings settings)
    : ring_(ring), exports_(exports), settings_(settings) {
  admission_.connections_max = settings.connections_max;
}

Server::~Server() {
  assert(clients_.empty() && listeners_.empty() && handshakes_ == 0 &&
         "stop() a server before it goes");
}

void Server::listen(std::unique_ptr<io::Listener> listener, std::string default_export,
                    TlsAccess tls, ExportSource* source) {
  if (tls.mode == TlsMode::on) {
    io::log(io::LogLevel::warning,
            "nbd: TLS is offered and not required on {}: an active attacker can strip it",
            listener->address());
  }
  open_listener(std::move(listener), Visibility::all(exports_, std::move(default_export), source),
                std::move(tls));
}

uint16_t Server::open_port(const io::HostPort& address, std::shared_ptr<Export> exported) {
  std::unique_ptr<io::Listener> listener = io::Listener::tcp(ring_, address);
  const uint16_t port = listener->port();
  open_listener(std::move(listener), Visibility::only(std::move(exported)), settings_.ports_tls)
      .port_of_export = port;
  return port;
}

void Server::change_credentials(std::shared_ptr<const TlsServer> credentials) {
  const auto change = [&](TlsAccess& access) {
    if (access.mode != TlsMode::off) access.server = credentials;
  };
  change(settings_.ports_tls);
  for (const auto& state : listeners_) change(state->tls);
}

io::Task<void> Server::close_port(uint16_t port) {
  const auto found = std::ranges::find_if(
      listeners_, [port](const auto& state) { return state->port_of_export == port; });
  if (found == listeners_.end()) co_return;
  const std::unique_ptr<ListenerState> state = std::move(*found);
  listeners_.erase(found);
  co_await close_listener(*state);
}

Server::ListenerState& Server::open_listener(std::unique_ptr<io::Listener> listener,
                                             Visibility visible, TlsAccess tls) {
  io::log(io::LogLevel::info, "nbd: listening on {}", listener->address());
  ListenerState& state = *listeners_.emplace_back(
      std::make_unique<ListenerState>(std::move(listener), std::move(visible), std::move(tls)));
  state.accepting.spawn(accept_clients(state));
  return state;
}

io::Task<void> Server::close_listener(ListenerState& state) {
  state.listener->close();
  co_await state.accepting.joined();
  state.listener.reset();
  co_await state.connections.joined();
}

io::Task<void> Server::accept_clients(ListenerState& state) {
  for (;;) {
    std::unique_ptr<io::Socket> socket;
    std::string trouble;
    try {
      socket = co_await state.listener->accept();
    } catch (const std::system_error& error) {
      trouble = error.what();
    }
    if (!trouble.empty()) {  // X3: out of file descriptors, say; open connections continue
      io::log(io::LogLevel::warning, "nbd: {}", trouble);
      co_await io::sleep(ring_, ring_, settings_.accept_pause);
      continue;
    }
    if (!socket) co_return;
    ++counters_.accepted;
    if (admit(*socket)) state.connections.spawn(serve_client(state, std::move(socket)));
  }
}

/// Makes room for one more client, at the expense of the slowest handshake (H11); false when it
/// comes from elsewhere than it may, or when the server is full beyond polite refusal (X2).
bool Server::admit(const io::Socket& socket) {
  if (!settings_.allowed.contains(socket.peer())) {
    ++counters_.turned_away;
    io::log(io::LogLevel::warning, "nbd: turned {} away: not an allowed address", socket.peer());
    return false;
  }
  if (clients_.size() >= settings_.connections_max + settings_.connections_excess_max) {
    ++counters_.turned_away;
    io::log(io::LogLevel::warning, "nbd: turned a client away, {} are connected", clients_.size());
    return false;
  }
  if (handshakes_ >= settings_.handshakes_max) {
    const auto oldest = std::ranges::find_if(
        clients_, [](const Client& client) { return client.shaking_hands != nullptr; });
    assert(oldest != clients_.end());
    io::log(io::LogLevel::warning, "nbd: dropped {}: {} handshakes are under way",
            oldest->shaking_hands->peer(), handshakes_);
    ++counters_.dropped;
    std::exchange(oldest->shaking_hands, nullptr)->abort();
    --handshakes_;
  }
  return true;
}

io::Task<void> Server::serve_client(ListenerState& state, std::unique_ptr<io::Socket> socket) {
  const auto client = clients_.insert(clients_.end(), Client{socket.get()});
  ++handshakes_;
  Connection connection;
  std::optional<Negotiated> negotiated = co_await shake_hands(state, *client, *socket, connection);
  connection.socket = std::move(socket);
  assert(handshakes_ <= clients_.size());
  if (std::exchange(client->shaking_hands, nullptr)) --handshakes_;
  if (negotiated) {
    client->served = negotiated->place.exported().shared_from_this();
    io::Task<void> transmission = transmit(std::move(connection), std::move(*negotiated));
    co_await std::move(transmission);
  }
  clients_.erase(client);
}

io::Task<std::optional<Negotiated>> Server::shake_hands(ListenerState& state, Client& client,
                                                        io::Socket& socket,
                                                        Connection& connection) {
  Handshake handshake(ring_, ring_, socket, state.visible, admission_, settings_.handshake,
                      state.tls);
  std::optional<Negotiated> negotiated;
  try {
    negotiated = co_await handshake.run();
  } catch (const std::exception& reason) {
    ++counters_.dropped;
    io::log(io::LogLevel::warning, "nbd: dropped {} in the handshake: {}", socket.peer(),
            reason.what());
  }
  if (!client.shaking_hands) negotiated.reset();  // dropped meanwhile, for a newer client
  connection.tls = handshake.take_tls();
  connection.read_ahead.assign(handshake.read_ahead().begin(), handshake.read_ahead().end());
  co_return std::move(negotiated);
}

io::Task<void> Server::transmit(Connection connection, Negotiated negotiated) {
  io::Executor& home = negotiated.place.exported().home().executor;
  if (home.here()) {
    std::unique_ptr<io::Stream> stream = connection.stream_on(ring_, std::move(connection.socket));
    io::Task<void> session = serve_session(std::move(stream), std::move(negotiated),
                                           std::move(connection.read_ahead), settings_.session);
    co_await std::move(session);
    co_return;
  }
  io::Ring& target = dynamic_cast<io::Ring&>(home);
  const std::string peer = connection.socket->peer();
  io::OwnedFd fd = connection.socket->release();
  const auto session = [&] {
    auto socket = std::make_unique<io::Socket>(target, std::move(fd), peer);
    return serve_session(connection.stream_on(target, std::move(socket)), std::move(negotiated),
                         std::move(connection.read_ahead), settings_.session);
  };
  co_await io::call_on(target, ring_, std::cref(session));
}

io::Task<void> Server::stop() {
  admission_.draining = true;
  for (const auto& state : listeners_) state->listener->close();
  io::TaskScope draining;
  draining.spawn(drain());
  for (const auto& state : listeners_) co_await close_listener(*state);
  co_await draining.joined();
  listeners_.clear();
}

io::Task<void> Server::drain() {
  std::set<std::shared_ptr<Export>> served;
  for (const auto& exported : exports_.list()) served.insert(exported);
  for (const Client& client : clients_) {
    if (client.served) served.insert(client.served);
  }
  for (const auto& exported : served) {
    exported->home().executor.post([exported, grace = settings_.drain_grace] {
      exported->close("server is shutting down", grace);
    });
  }
  if (handshakes_ == 0) co_return;
  co_await io::sleep(ring_, ring_, settings_.drain_grace);
  for (const Client& client : clients_) {
    if (client.shaking_hands) client.shaking_hands->abort();
  }
}

}  // namespace nbd
