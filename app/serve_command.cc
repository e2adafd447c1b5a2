#include "app/commands.h"
#include "app/daemon.h"
#include "io/file_limit.h"
#include "io/log.h"
#include "io/signals.h"

namespace app {

int run_serve(const ServeOptions& options) {
  io::configure_log(options.log.format, options.log.level);
  std::vector<ActivatedSocket> activated = take_activated_sockets();
  io::block_termination_signals();
  io::raise_file_limit();
  Daemon daemon(options, std::move(activated));
  try {
    daemon.start();
  } catch (...) {
    daemon.stop();
    throw;
  }
  io::log(io::LogLevel::info, "varve {} is ready", VARVE_VERSION);
  io::wait_for_termination();
  io::log(io::LogLevel::info, "stopping");
  daemon.stop();
  io::log(io::LogLevel::info, "stopped in good order");
  return 0;
}

}  // namespace app
