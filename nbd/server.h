// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "io/address.h"
#include "io/listener.h"
#include "io/networks.h"
#include "io/ring.h"
#include "io/task_scope.h"
#include "nbd/export_table.h"
#include "nbd/handshake.h"
#include "nbd/session.h"
#include "nbd/tls.h"

namespace nbd {

struct ServerSettings {
  HandshakeSettings handshake;
  SessionSettings session;
  uint32_t connections_max = 1024;       ///< X2: in transmission
  uint32_t connections_excess_max = 64;  ///< X2: accepted above that, to be refused with a text
  uint32_t handshakes_max = 256;         ///< H11
  io::Duration accept_pause = std::chrono::milliseconds(100);  ///< without descriptors (X3)
  io::Duration drain_grace = std::chrono::seconds(1);          ///< X10; at most 5 s
  TlsAccess ports_tls;                                         ///< of the listeners of one export
  io::Networks allowed;  ///< whose clients are served; the others are turned away at accept
};

struct ServerCounters {
  std::atomic<uint64_t> accepted = 0;
  std::atomic<uint64_t> turned_away = 0;  ///< closed at accept (X2, or not an allowed address)
  std::atomic<uint64_t> dropped = 0;      ///< in the handshake, for breaking the rules
};

/// Listens, negotiates, and hands every connection to the ring of the export that it asked for.
///
/// Each accepted connection is a coroutine here, from its greeting to its end, wherever its
/// transmission phase runs; stop() joins them all. Spec: docs/nbd-support.md,
/// "Handshake", "Transports", "Limits and time-outs". Belongs to `ring`'s thread.
class Server {
 public:
  /// `exports` outlives the server.
  Server(io::Ring& ring, const ExportTable& exports, ServerSettings settings = {});
  /// After stop().
  ~Server();

  /// Accepts on `listener`, whose clients see every export, those of `source` too; `default_export`
  /// answers to the empty name (O10).
  void listen(std::unique_ptr<io::Listener> listener, std::string default_export = {},
              TlsAccess tls = {}, ExportSource* source = nullptr);

  /// Opens a listener of `exported` alone, and returns its port: it accepts already (L9). Throws
  /// std::system_error (EADDRINUSE, …).
  uint16_t open_port(const io::HostPort& address, std::shared_ptr<Export> exported);

  /// Stops listening on that port at once, and returns when every connection accepted on it has
  /// ended, so that the port can serve another export (L7).
  io::Task<void> close_port(uint16_t port);

  /// What clients that connect from now on are shown, on every listener that speaks TLS; not null.
  void change_credentials(std::shared_ptr<const TlsServer> credentials);

  /// Drains (X10): closes all listeners, answers ESHUTDOWN and ERR_SHUTDOWN, and after drain_grace
  /// ends every connection. Returns when all have ended. Closes the exports that are served.
  io::Task<void> stop();

  const ServerCounters& counters() const { return counters_; }
  const Admission& admission() const { return admission_; }

 private:
  struct ListenerState;  // a listener with the connections accepted on it
  struct Client;         // a connection
  struct Connection;     // the same on its way to the transmission phase

  ListenerState& open_listener(std::unique_ptr<io::Listener> listener, Visibility visible,
                               TlsAccess tls);
  io::Task<void> close_listener(ListenerState& state);
  io::Task<void> accept_clients(ListenerState& state);
  bool admit(const io::Socket& socket);
  io::Task<void> serve_client(ListenerState& state, std::unique_ptr<io::Socket> socket);
  io::Task<std::optional<Negotiated>> shake_hands(ListenerState& state, Client& client,
                                                  io::Socket& socket, Connection& connection);
  io::Task<void> transmit(Connection connection, Negotiated negotiated);
  io::Task<void> drain();

  io::Ring& ring_;
  const ExportTable& exports_;
  ServerSettings settings_;  // but for the credentials never changed
  Admission admission_;
  ServerCounters counters_;
  std::list<std::unique_ptr<ListenerState>> listeners_;
  std::list<Client> clients_;  // in the order of arrival
  uint32_t handshakes_ = 0;
};

}  // namespace nbd
