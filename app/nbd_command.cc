// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "app/activation.h"
#include "app/api_call.h"
#include "app/background.h"
#include "app/commands.h"
#include "app/exit_status.h"
#include "app/find_images.h"
#include "io/call_on.h"
#include "io/file_limit.h"
#include "io/listener.h"
#include "io/outcome.h"
#include "io/ring_thread.h"
#include "io/signals.h"
#include "nbd/export.h"
#include "nbd/export_table.h"
#include "nbd/server.h"
#include "nbd/uri.h"
#include "qcow/chain/chain.h"
#include "qcow/format/format_error.h"
#include "qcow/image/image.h"

namespace app {
namespace {

/// "monday" of "/srv/monday.qcow2".
std::string name_of_file(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  if (name.ends_with(".qcow2")) name.resize(name.size() - std::string_view(".qcow2").size());
  return name;
}

/// LIST never shows an empty name (O3): an export without one has its file's, and the empty name
/// opens it too.
std::string name_of_export(const NbdOptions& options) {
  if (!options.export_name.empty()) return options.export_name;
  std::string name = name_of_file(options.file);
  try {
    nbd::check_string(name, "export name");
  } catch (const nbd::ProtocolError&) {
    name.clear();  // a file may be called what no export may
  }
  return name.empty() ? "disk" : name;
}

/// The images below the one that is served, by their file names, as metadata contexts.
nbd::MetaContexts contexts_of(const qcow::Chain* chain, size_t first_ancestor) {
  std::vector<nbd::Ancestor> ancestors;
  for (size_t index = first_ancestor; chain && index < chain->layer_count(); ++index) {
    const qcow::Layer& layer = chain->layer(index);
    ancestors.push_back({name_of_file(layer.name()), layer.header().virtual_size});
  }
  return nbd::change_contexts(ancestors);
}

/// A socket that clients come to, and what it does about TLS.
struct Place {
  std::unique_ptr<io::Listener> listener;
  nbd::TlsMode tls = nbd::TlsMode::off;
};

/// One image on its listeners. All methods run on the ring.
class ImageServer {
 public:
  ImageServer(io::RingThread& thread, const NbdOptions& options,
              std::vector<ActivatedSocket> activated)
      : ring_(thread.ring()),
        runtime_(thread.runtime()),
        options_(options),
        activated_(std::move(activated)) {}

  io::Task<void> start() {
    const std::shared_ptr<const nbd::TlsServer> tls = load_tls(options_.tls);
    std::vector<Place> places = listen();  // first: a taken address must not touch the image
    port_ = places.front().listener->port();
    co_await open();
    nbd::ExportSpec spec;
    spec.name = name_of_export(options_);
    spec.description = options_.description;
    spec.kind = options_.read_only ? nbd::ExportKind::point : nbd::ExportKind::ingest;
    spec.read_only = options_.read_only;
    spec.connections_max = options_.connections_max;
    spec.writes_may_recover = true;
    spec.more_contexts = chain_ ? contexts_of(chain_.get(), 1) : contexts_of(image_->parents(), 0);
    exported_ = nbd::Export::make(spec, *device_, runtime_);
    exports_.add(exported_);
    nbd::ServerSettings settings;
    settings.allowed = options_.allowed;
    server_ = std::make_unique<nbd::Server>(ring_, exports_, settings);
    for (Place& place : places) {
      io::log(io::LogLevel::info, "nbd: serving {} as \"{}\" on {}{}", options_.file,
              exported_->name(), place.listener->address(),
              options_.read_only ? ", read-only" : "");
      nbd::TlsAccess access{.mode = place.tls, .server = tls};
      server_->listen(std::move(place.listener), exported_->name(), std::move(access));
    }
  }

  /// Ends the connections in good order and leaves the image clean. Throws the failure that made
  /// the image unfit for changes, if there was one: until now what could be read was served.
  io::Task<void> stop() {
    co_await server_->stop();
    exports_.remove(*exported_);
    co_await exported_->join();
    exported_.reset();
    server_.reset();
    const auto close_image = [this]() -> io::Task<void> {
      if (image_) co_await image_->close();
    };
    io::Outcome<> closed = co_await io::attempt(close_image);
    image_.reset();
    chain_.reset();
    closed.take();
  }

  /// Of the first listener; 0 for a Unix socket. After start().
  uint16_t port() const { return port_; }

 private:
  std::vector<Place> listen() {
    std::vector<Place> places;
    for (ActivatedSocket& socket : activated_) {
      if (socket.use == ActivatedSocket::Use::api) {
        throw UsageError(socket.name + " is for the HTTP API, which varve nbd does not provide");
      }
      std::optional<nbd::TlsMode> own;
      if (socket.use == ActivatedSocket::Use::nbd_tls) own = nbd::TlsMode::require;
      const nbd::TlsMode mode = tls_mode({socket.name, socket.is_local, own});
      places.push_back({io::Listener::adopt(ring_, std::move(socket.fd)), mode});
    }
    if (!places.empty()) return places;
    constexpr io::Duration kPatience = io::ListeningSocket::kStartPatience;
    if (!options_.socket.empty()) {
      const nbd::TlsMode mode = tls_mode({"--socket", true, std::nullopt});
      places.push_back({io::Listener::unix_socket(ring_, options_.socket, kPatience), mode});
    } else {
      const auto address = io::SocketAddress::tcp(options_.bind, options_.port);
      const nbd::TlsMode mode =
          tls_mode({"--bind " + options_.bind, address.is_loopback(), std::nullopt});
      places.push_back({io::Listener::tcp(ring_, {options_.bind, options_.port}, kPatience), mode});
    }
    return places;
  }

  nbd::TlsMode tls_mode(const ListenerTls& listener) const {
    return tls_mode_of(options_.tls, options_.allow_plain, listener);
  }

  io::Task<std::unique_ptr<qcow::Image>> open_for_writing(std::string path,
                                                          qcow::ImageOptions image_options) {
    try {
      co_return co_await qcow::Image::open(runtime_, path, image_options);
    } catch (const qcow::PublishedImageError& error) {
      throw std::runtime_error(
          fmt::format("{}; serve it with --read-only, or make an overlay: varve create "
                      "OVERLAY.qcow2 --backing FILE",
                      error.what()));
    }
  }

  io::Task<void> open() {
    if (options_.read_only) {
      const qcow::ChainOptions anywhere;
      chain_ = co_await qcow::Chain::open(runtime_, options_.file, anywhere);
      device_ = chain_.get();
    } else {
      qcow::ImageOptions image_options;
      image_options.commit_interval = options_.commit_interval;
      image_options.commit_bytes = options_.commit_bytes;
      image_options.no_hole =
          options_.no_hole_allocates ? qcow::NoHole::allocate : qcow::NoHole::zero_clusters;
      image_options.on_failure = [this](std::exception_ptr cause) {
        if (exported_) exported_->fail(std::move(cause));
      };
      const std::string path = co_await io::follow_link(runtime_.files, options_.file);
      image_ = co_await open_for_writing(path, image_options);
      device_ = image_.get();
    }
  }

  io::Ring& ring_;
  io::Runtime runtime_;
  const NbdOptions& options_;
  std::vector<ActivatedSocket> activated_;
  uint16_t port_ = 0;
  std::unique_ptr<qcow::Image> image_;
  std::unique_ptr<qcow::Chain> chain_;
  io::BlockDevice* device_ = nullptr;
  std::shared_ptr<nbd::Export> exported_;
  nbd::ExportTable exports_;
  std::unique_ptr<nbd::Server> server_;
};

/// Opens the image and listens. Throws CommandFailed where another program has the image open.
void start_server(io::RingThread& thread, ImageServer& server, const std::string& file) {
  try {
    io::call_and_wait(thread.ring(), [&server] { return server.start(); });
  } catch (const qcow::FormatError& refused) {
    // The lock's own text names a byte of the file, for who debugs a program that locks images.
    if (std::string_view(refused.what()).find("in use by another process") == std::string::npos) {
      throw;
    }
    throw CommandFailed(kBusy, fmt::format("{} or an image below it is in use by another process; "
                                           "`fuser {}` shows which",
                                           file, file));
  }
}

/// What the command of --run finds in its environment.
std::vector<std::string> variables_for(const NbdOptions& options, uint16_t port) {
  const bool local = !options.socket.empty();
  nbd::Uri uri{.port = port, .socket = options.socket, .export_name = options.export_name};
  if (!local) uri.host = options.bind;
  uri.tls = options.tls.mode == nbd::TlsMode::require;
  return {"uri=" + nbd::to_text(uri), "unixsocket=" + options.socket,
          "port=" + (local ? std::string() : std::to_string(port)),
          "exportname=" + options.export_name};
}

/// A backup's image in the place of its id. Published images are only read.
void find_image(NbdOptions& options) {
  const FoundImages found = find_images(options.file, options.catalogue, options.config);
  if (!found.of_catalogue) {
    if (options.disk) throw UsageError("--disk: only a backup id has several");
    return;
  }
  const std::vector<uint32_t>& disks = found.images.disks;
  if (!options.disk && disks.size() > 1) {
    throw UsageError(
        fmt::format("{} has {} disks; --disk N chooses one", options.file, disks.size()));
  }
  const auto disk = std::find(disks.begin(), disks.end(), options.disk.value_or(disks.front()));
  if (disk == disks.end()) {
    throw UsageError(fmt::format("{} has no disk {}", options.file, *options.disk));
  }
  options.file = found.images.paths.at(static_cast<size_t>(disk - disks.begin()));
  options.read_only = true;
}

/// A process in the background has another directory.
void make_paths_absolute(NbdOptions& options) {
  for (std::string* const path : {&options.file, &options.socket, &options.pid_file}) {
    if (!path->empty() && *path != "-") *path = std::filesystem::absolute(*path).string();
  }
}

int serve(NbdOptions options, std::vector<ActivatedSocket> activated) {
  make_paths_absolute(options);
  std::optional<Background> background;
  if (options.fork) background.emplace(Background::enter());
  std::optional<PrivateDirectory> directory;
  if (options.socket == "-") options.socket = directory.emplace().socket();
  io::block_termination_signals();
  io::raise_file_limit();
  if (!options.run.empty()) prepare_run_command();
  io::RingThread thread("varve-nbd");
  ImageServer server(thread, options, std::move(activated));
  start_server(thread, server, options.file);
  std::optional<PidFile> pid_file;
  io::Outcome<int> status = io::attempt([&] {
    if (!options.pid_file.empty()) pid_file.emplace(options.pid_file);
    if (background) background->report_ready();
    if (!options.run.empty()) {
      return run_command(options.run, variables_for(options, server.port()));
    }
    io::wait_for_signal();
    return 0;
  });
  io::call_and_wait(thread.ring(), [&server] { return server.stop(); });
  thread.stop();
  io::log(io::LogLevel::info, "nbd: {} is closed and clean", options.file);
  return status.take();
}

}  // namespace

int run_nbd(const NbdOptions& given) {
  io::configure_log(given.log.format, given.quiet ? io::LogLevel::warning : given.log.level);
  if (given.list) return list_exports(given);
  NbdOptions options = given;
  find_image(options);
  std::vector<ActivatedSocket> activated = take_activated_sockets();
  if (!activated.empty() && options.place_is_given) {
    throw UsageError("sockets come from socket activation; leave --socket, --port and --bind out");
  }
  if (!activated.empty() && (options.fork || !options.run.empty())) {
    throw UsageError("--fork and --run do not go with socket activation");
  }
  if (!options.run.empty() && !options.place_is_given) options.socket = "-";
  return serve(std::move(options), std::move(activated));
}

}  // namespace app
