#include <fmt/format.h>

#include <memory>

#include "app/commands.h"
#include "io/call_on.h"
#include "io/file_limit.h"
#include "io/listener.h"
#include "io/ring_thread.h"
#include "io/signals.h"
#include "nbd/export.h"
#include "nbd/export_table.h"
#include "nbd/server.h"
#include "qcow/chain.h"
#include "qcow/image.h"

namespace app {
namespace {

/// The images below the one that is served, by their file names, as metadata contexts.
nbd::MetaContexts contexts_of(const qcow::Chain* chain, size_t first_ancestor) {
  std::vector<nbd::Ancestor> ancestors;
  for (size_t index = first_ancestor; chain && index < chain->layer_count(); ++index) {
    const qcow::Layer& layer = chain->layer(index);
    std::string point = layer.name();
    if (point.ends_with(".qcow2")) point.resize(point.size() - std::string_view(".qcow2").size());
    ancestors.push_back({std::move(point), layer.header().virtual_size});
  }
  return nbd::change_contexts(ancestors);
}

/// One image, served in the foreground. All methods run on the ring.
class ImageServer {
 public:
  ImageServer(io::RingThread& thread, const NbdOptions& options)
      : ring_(thread.ring()), runtime_(thread.runtime()), options_(options) {}

  /// Returns the address that clients connect to.
  io::Task<std::string> start() {
    nbd::TlsAccess tls{.mode = tls_mode(), .server = load_tls(options_.tls)};
    auto listener = listen();  // first: a taken address must not touch the image
    const std::string address = listener->address();
    co_await open();
    nbd::ExportSpec spec;
    spec.name = options_.export_name;
    spec.kind = options_.read_only ? nbd::ExportKind::point : nbd::ExportKind::ingest;
    spec.read_only = options_.read_only;
    spec.more_contexts = chain_ ? contexts_of(chain_.get(), 1) : contexts_of(image_->parents(), 0);
    exported_ = nbd::Export::make(spec, *device_, runtime_);
    exports_.add(exported_);
    nbd::ServerSettings settings;
    settings.allowed = options_.allowed;
    server_ = std::make_unique<nbd::Server>(ring_, exports_, settings);
    server_->listen(std::move(listener), options_.export_name, std::move(tls));
    co_return address;
  }

  /// Ends the connections in good order and leaves the image clean.
  io::Task<void> stop() {
    co_await server_->stop();
    exports_.remove(*exported_);
    co_await exported_->join();
    exported_.reset();
    server_.reset();
    if (image_) co_await image_->close();
    image_.reset();
    chain_.reset();
  }

 private:
  std::unique_ptr<io::Listener> listen() {
    if (!options_.socket.empty()) return io::Listener::unix_socket(ring_, options_.socket);
    return io::Listener::tcp(ring_, {options_.bind, options_.port});
  }

  nbd::TlsMode tls_mode() const {
    ListenerTls listener{"--socket", true, std::nullopt};
    if (options_.socket.empty()) {
      const auto address = io::SocketAddress::tcp(options_.bind, options_.port);
      listener = {"--bind " + options_.bind, address.is_loopback(), std::nullopt};
    }
    return tls_mode_of(options_.tls, options_.allow_plain, listener);
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
      image_ = co_await qcow::Image::open(runtime_, options_.file, image_options);
      device_ = image_.get();
    }
  }

  io::Ring& ring_;
  io::Runtime runtime_;
  const NbdOptions& options_;
  std::unique_ptr<qcow::Image> image_;
  std::unique_ptr<qcow::Chain> chain_;
  io::BlockDevice* device_ = nullptr;
  std::shared_ptr<nbd::Export> exported_;
  nbd::ExportTable exports_;
  std::unique_ptr<nbd::Server> server_;
};

}  // namespace

int run_nbd(const NbdOptions& options) {
  io::configure_log(options.log.format, options.log.level);
  io::block_termination_signals();
  io::raise_file_limit();
  io::RingThread thread("varve-nbd");
  ImageServer server(thread, options);
  const std::string address =
      io::call_and_wait(thread.ring(), [&server] { return server.start(); });
  io::log(io::LogLevel::info, "nbd: serving {} as \"{}\" on {}{}", options.file,
          options.export_name, address, options.read_only ? ", read-only" : "");
  io::wait_for_termination();
  io::call_and_wait(thread.ring(), [&server] { return server.stop(); });
  thread.stop();
  io::log(io::LogLevel::info, "nbd: {} is closed and clean", options.file);
  return 0;
}

}  // namespace app
