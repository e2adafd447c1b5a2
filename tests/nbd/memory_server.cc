// SPDX-License-Identifier: Apache-2.0
// Serves a disk in memory on a Unix socket or a port of 127.0.0.1, for trials with real clients:
//   nbd_memory_server SOCKET|PORT SIZE [NAME] [--read-only] [--threads]
// Ends at the end of its standard input.
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <thread>

#include "io/call_on.h"
#include "io/ring_thread.h"
#include "nbd/server.h"
#include "tests/support/memory_device.h"

namespace {

struct Arguments {
  std::string where, name = "disk";
  uint64_t size = 0;
  bool read_only = false, threads = false;
};

Arguments parse(int count, char** values) {
  Arguments arguments;
  int place = 0;
  for (int index = 1; index < count; ++index) {
    const std::string value = values[index];
    if (value == "--read-only") {
      arguments.read_only = true;
    } else if (value == "--threads") {
      arguments.threads = true;
    } else if (++place == 1) {
      arguments.where = value;
    } else if (place == 2) {
      arguments.size = std::stoull(value);
    } else {
      arguments.name = value;
    }
  }
  return arguments;
}

std::unique_ptr<io::Listener> make_listener(io::Ring& ring, const std::string& where) {
  if (where.starts_with('/')) return io::Listener::unix_socket(ring, where);
  return io::Listener::tcp(ring, {"127.0.0.1", static_cast<uint16_t>(std::stoul(where))});
}

io::Task<void> serve(io::RingRuntime& here, io::Runtime home, Arguments arguments) {
  support::MemoryDevice device(arguments.size);
  nbd::ExportTable exports;
  nbd::ExportSpec spec{.name = arguments.name, .description = "a disk in memory"};
  spec.read_only = arguments.read_only;
  spec.kind = arguments.read_only ? nbd::ExportKind::point : nbd::ExportKind::ingest;
  const auto exported = nbd::Export::make(spec, device, home);
  exports.add(exported);
  nbd::Server server(here.ring(), exports);
  server.listen(make_listener(here.ring(), arguments.where), arguments.name);
  io::Event end(here.ring());
  std::thread reader([&] {
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) continue;
    here.ring().post([&end] { end.set(); });
  });
  co_await end.wait();
  reader.join();
  co_await server.stop();
  const auto join = [&] { return exported->join(); };
  if (home.executor.here()) {
    co_await join();
  } else {
    co_await io::call_on(home.executor, here.ring(), std::cref(join));
  }
}

}  // namespace

int main(int count, char** values) {
  const Arguments arguments = parse(count, values);
  if (arguments.size == 0) {
    std::fputs("usage: nbd_memory_server SOCKET|PORT SIZE [NAME] [--read-only] [--threads]\n",
               stderr);
    return 2;
  }
  io::RingRuntime here;
  if (arguments.threads) {
    io::RingThread there("export");
    here.ring().run(serve(here, there.runtime(), arguments));
  } else {
    here.ring().run(serve(here, here.runtime(), arguments));
  }
}
