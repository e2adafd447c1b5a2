// SPDX-License-Identifier: Apache-2.0
#include "app/nbd_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>

#include "app/numbers.h"
#include "app/settings.h"

namespace app {
namespace {

/// Puts the option's name before what is wrong with its value.
template <class F>
void named(const char* option, F apply) {
  try {
    apply();
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("{}: {}", option, error.what()));
  }
}

bool parse_no_hole(std::string_view text) {
  if (text == "zero") return false;
  if (text == "allocate") return true;
  throw UsageError(fmt::format("\"{}\" is neither zero nor allocate", text));
}

void declare_place(CLI::App& command, NbdOptions& options) {
  const auto given = [&options](const std::string&) {
    options.place_is_given = true;
    return std::string();
  };
  auto* const socket = command
                           .add_option("-k,-U,--socket", options.socket,
                                       "serve on a Unix socket; -: a private one in a temporary\n"
                                       "directory, removed at the end")
                           ->type_name("PATH")
                           ->group("Where")
                           ->each(given);
  add_number(command, "-p,--port", options.port, 0, UINT16_MAX,
             "TCP port (default 10809); 0 takes a free one")
      ->group("Where")
      ->each(given)
      ->excludes(socket);
  command.add_option("-b,--bind", options.bind, "TCP address (default 127.0.0.1)")
      ->type_name("HOST")
      ->group("Where")
      ->each(given)
      ->excludes(socket);
}

/// Of a backup id in FILE's place.
void declare_backup_lookup(CLI::App& command, NbdOptions& options) {
  add_value(
      command, "--disk",
      [&options](const std::string& text) {
        options.disk = whole_number<uint32_t>(text, 0, UINT32_MAX);
      },
      "of a backup with several disks: which one, by its index", "N")
      ->group("What");
  command
      .add_option("--catalogue", options.catalogue,
                  "the catalogue that knows the backup (default: that of\n`varve serve`)")
      ->type_name("FILE")
      ->group("What");
  command.add_option("--config", options.config, "configuration of `varve serve`, which names it")
      ->type_name("FILE")
      ->group("What");
}

void declare_export(CLI::App& command, NbdOptions& options) {
  command
      .add_option("-x,--export-name", options.export_name,
                  "name clients ask for (default: the file's); the empty name\n"
                  "opens it as well")
      ->type_name("NAME")
      ->group("What");
  command.add_option("-D,--description", options.description, "text that LIST shows")
      ->type_name("TEXT")
      ->group("What");
  command.add_flag("-r,--read-only", options.read_only, "refuse every write")->group("What");
  add_number(command, "-e,--shared", options.connections_max, 0, 1024,
             "connections at once (default 64); 0: as many as the\nserver takes, 1024")
      ->group("What");
  command
      .add_option_function<std::string>(
          "--commit-interval",
          [&options](const std::string& text) {
            named("--commit-interval", [&] { options.commit_interval = parse_duration(text); });
          },
          "longest time between two commits (default 1s)")
      ->type_name("TIME")
      ->group("What");
  command
      .add_option_function<std::string>(
          "--commit-bytes",
          [&options](const std::string& text) {
            named("--commit-bytes", [&] { options.commit_bytes = parse_commit_bytes(text); });
          },
          "most data between two commits (default 256M)")
      ->type_name("SIZE")
      ->group("What");
  command
      .add_option_function<std::string>(
          "--no-hole",
          [&options](const std::string& text) {
            named("--no-hole", [&] { options.no_hole_allocates = parse_no_hole(text); });
          },
          "what a client's WRITE_ZEROES with NO_HOLE does: zero (the\n"
          "default) marks clusters as zero, which takes no space;\n"
          "allocate stores zeroes")
      ->type_name("HOW")
      ->group("What");
}

void declare_life(CLI::App& command, NbdOptions& options) {
  command
      .add_option("--run", options.run,
                  "serve while this shell command runs, and end with its\n"
                  "exit status; $uri, $unixsocket, $port and $exportname tell\n"
                  "it where. Without a place to serve on: as with -k -")
      ->type_name("CMD")
      ->group("How long");
  command.add_flag("--fork", options.fork, "go into the background once the server listens")
      ->group("How long");
  command
      .add_option("-P,--pid-file,--pidfile", options.pid_file,
                  "file for the process id, written once the server listens")
      ->type_name("PATH")
      ->group("How long");
  command.add_flag("-q,--quiet", options.quiet, "say nothing but warnings and errors")
      ->group("How long");
  command
      .add_flag_callback(
          "-t,--persistent", [] {}, "serve on when the last client leaves: always so")
      ->group("How long");
}

/// TLS and addresses, under the names that `varve serve` has for them too.
void declare_access(CLI::App& command, NbdOptions& options) {
  TlsOptions& tls = options.tls;
  command
      .add_option_function<std::string>(
          "--tls",
          [&tls](const std::string& mode) {
            named("--tls", [&] { tls.mode = parse_tls_mode(mode); });
          },
          kTlsHelp)
      ->type_name("MODE")
      ->group("Access");
  command.add_option("--tls-certificates", tls.certificates, kTlsCertificatesHelp)
      ->type_name("DIR")
      ->group("Access");
  command.add_option("--tls-psk", tls.psk, kTlsPskHelp)->type_name("FILE")->group("Access");
  command.add_flag("--allow-plain", options.allow_plain, "listen without TLS beyond loopback")
      ->group("Access");
  command.add_flag("--tls-verify-peer", tls.verify_peer, kTlsVerifyPeerHelp)->group("Access");
  command.add_option("--tls-allowed-name", tls.allowed_names, kTlsAllowedNameHelp)
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group("Access");
  command
      .add_option_function<std::vector<std::string>>(
          "--allow-address",
          [&options](const std::vector<std::string>& ranges) {
            named("--allow-address", [&] { options.allowed = parse_networks(ranges); });
          },
          kAllowAddressHelp)
      ->type_name("CIDR")
      ->allow_extra_args(false)
      ->group("Access");
}

/// What users of the peers look for and do not find here: what to do instead.
struct Refused {
  const char* option;
  const char* what;
};
constexpr std::array kRefused = {
    Refused{"-s,--snapshot",
            "make an overlay and serve that: varve create OVERLAY.qcow2 --backing FILE"},
    Refused{"-l,--load-snapshot", "internal snapshots are not served; every image of a chain is"},
    Refused{"-c,--connect", "attach a kernel device with nbd-client -unix SOCKET /dev/nbdN"},
    Refused{"-d,--disconnect", "detach a kernel device with nbd-client -d /dev/nbdN"},
    Refused{"-o,--offset", "the whole disk is served"},
    Refused{"-B,--bitmap",
            "every image below the served one is offered as "
            "qemu:dirty-bitmap:since-<its file name>"},
    Refused{"--tls-creds", "--tls-certificates DIR or --tls-psk FILE"},
    Refused{"--cache", "data go around the page cache anyway, and FLUSH makes them durable"},
    Refused{"--aio", "all input and output is io_uring"},
    Refused{"--discard", "TRIM always gives the space back"},
    Refused{"--vsock", "not offered yet; use --socket"},
    Refused{"--single", "serving on standard input and output is not supported; use --run"},
    Refused{"--detect-zeroes", "clusters of zeroes are never stored as data"},
};

void declare_refused(CLI::App& command) {
  for (const Refused& refused : kRefused) {
    command
        .add_option_function<std::string>(
            refused.option,
            [&refused](const std::string&) {
              throw UsageError(
                  fmt::format("varve nbd has no {}: {}", refused.option, refused.what));
            },
            "")
        ->expected(0, 1)
        ->group("");
  }
  command
      .add_option_function<std::string>(
          "-f,--format",
          [](const std::string& format) {
            if (format != "qcow2") {
              throw UsageError(fmt::format(
                  "varve nbd serves QCOW2 images, not \"{}\"; serve those with qemu-nbd or nbdkit",
                  format));
            }
          },
          "")
      ->group("");
}

}  // namespace

void declare_nbd(CLI::App& command, NbdOptions& options) {
  command.add_option("FILE", options.file,
                     "QCOW2 image to serve, or a backup id of the catalogue, read-only");
  command.add_flag("-L,--list", options.list,
                   "list the exports of the server at -k or -b and -p,\nand serve nothing");
  declare_place(command, options);
  declare_export(command, options);
  declare_backup_lookup(command, options);
  declare_life(command, options);
  declare_access(command, options);
  declare_refused(command);
  command.footer(
      "Serves until SIGTERM, and leaves the image clean. With sockets of systemd's socket\n"
      "activation it serves on these:\n"
      "  nbdcopy -- disk.raw [ varve nbd disk.qcow2 ]\n"
      "  varve nbd disk.qcow2 --read-only --run 'nbdinfo --map \"$uri\"'");
}

NbdOptions checked(NbdOptions options) {
  if (options.list) {
    if (!options.file.empty()) throw UsageError("varve nbd --list takes no FILE");
    if (options.tls.has_credentials() || options.tls.mode) {
      throw UsageError("varve nbd --list speaks no TLS; use nbdinfo --list nbds://…");
    }
    return options;
  }
  if (options.file.empty()) throw UsageError("varve nbd: FILE is required");
  if (options.connections_max == 0) options.connections_max = 1024;
  if (!options.run.empty() && options.fork) {
    throw UsageError("--run and --fork exclude each other: the command runs in the foreground");
  }
  return options;
}

}  // namespace app
