// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "api/api.h"
#include "api/http_server.h"
#include "app/activation.h"
#include "app/notify/sender.h"
#include "app/options.h"
#include "app/reload.h"
#include "app/service_status.h"
#include "app/token_file.h"
#include "engine/care/second_reader.h"
#include "engine/engine_impl.h"
#include "engine/ingest/node_client.h"
#include "engine/values/names.h"
#include "io/listener.h"
#include "io/ring_thread.h"
#include "nbd/export_table.h"
#include "nbd/server.h"

namespace app {

/// `varve serve`: builds the parts and hands them to each other, and takes them down again in the
/// opposite order.
///
/// start() and stop() are called on the main thread, once each; stop() also after a start() that
/// threw.
class Daemon {
 public:
  /// Touches nothing yet. `activated` sockets take the place of the default addresses (L4).
  /// `service` outlives the daemon. Throws UsageError for options that cannot be followed.
  Daemon(ServeOptions options, std::vector<ActivatedSocket> activated, ServiceStatus& service);
  ~Daemon();

  /// Recovers, then listens, then writes the ready file. Throws with a sentence.
  void start();

  /// What can change while it runs: from start() to stop().
  std::vector<Reloadable> reloadables();

  /// Fails running jobs, lets finalizing ones finish, and ends every connection in good order.
  void stop();

 private:
  void choose_places();
  void choose_tls();
  void choose_http_access();
  void make_rings();
  io::Task<void> bind_nbd();
  void start_engine();
  io::Task<void> listen_nbd();
  void start_http();
  void write_ready_file();
  void ask_status(const std::function<void(std::string)>& answer);
  std::optional<std::function<void()>> prepare_tls(const ServeOptions& fresh);
  std::optional<std::function<void()>> prepare_http_tls(const ServeOptions& fresh);
  std::string ready_text() const;

  io::Ring& nbd_ring() { return data_.front()->ring(); }

  ServeOptions options_;
  std::vector<ActivatedSocket> activated_;  // until they are taken
  ServiceStatus& service_;
  std::unique_ptr<io::RingThread> control_;
  std::vector<std::unique_ptr<io::RingThread>> data_;
  nbd::ExportTable exports_;
  std::unique_ptr<nbd::Server> nbd_;
  /// A main listener until the server takes it.
  struct Bound {
    std::unique_ptr<io::Listener> listener;
    nbd::TlsAccess tls;
  };
  std::vector<Bound> bound_;
  nbd::TlsAccess tls_access(nbd::TlsMode mode) const {
    return {mode, tls_.credentials, std::string(engine::kJobPrefix)};
  }

  /// TLS of NBD.
  struct NbdTls {
    std::shared_ptr<const nbd::TlsServer> credentials;
    std::vector<nbd::TlsMode> of_addresses;  // of options_.nbd
    std::vector<nbd::TlsMode> of_activated;  // of activated_
  };
  NbdTls tls_;
  std::vector<std::string> nbd_addresses_;
  std::unique_ptr<engine::NodeClient> node_;
  std::unique_ptr<engine::ReaderProcesses> readers_;
  std::unique_ptr<NotifySender> notify_;
  std::unique_ptr<engine::EngineImpl> engine_;
  /// Who may use HTTP.
  struct HttpAccess {
    std::shared_ptr<TokenFile> tokens;
    api::HttpTls tls;
  };
  HttpAccess http_access_;
  std::unique_ptr<api::Api> api_;
  std::unique_ptr<api::HttpServer> http_;
};

}  // namespace app
