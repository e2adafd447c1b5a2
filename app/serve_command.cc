// SPDX-License-Identifier: Apache-2.0
#include <csignal>

#include "app/commands.h"
#include "app/daemon.h"
#include "app/reload.h"
#include "app/service_status.h"
#include "io/file_limit.h"
#include "io/log.h"
#include "io/signals.h"

namespace app {
namespace {

/// Until a signal that ends the server.
void serve(const ServeOptions& options, Daemon& daemon, ServiceStatus& service) {
  Reloader reloader(options, daemon.reloadables());
  service.ready();
  io::log(io::LogLevel::info, "varve {} is ready", VARVE_VERSION);
  while (io::wait_for_signal() == SIGHUP) {
    service.reloading();
    reloader.reload();
    service.ready();
  }
}

}  // namespace

int run_serve(const ServeOptions& options) {
  io::configure_log(options.log.format, options.log.level);
  std::vector<ActivatedSocket> activated = take_activated_sockets();
  io::Notifier notifier = io::Notifier::from_environment();
  io::block_termination_signals();
  io::raise_file_limit();
  ServiceStatus service(std::move(notifier));
  Daemon daemon(options, std::move(activated), service);
  try {
    daemon.start();
  } catch (...) {
    daemon.stop();
    throw;
  }
  serve(options, daemon, service);
  service.stopping();
  io::log(io::LogLevel::info, "stopping");
  daemon.stop();
  io::log(io::LogLevel::info, "stopped in good order");
  return 0;
}

}  // namespace app
