// SPDX-License-Identifier: Apache-2.0
#include "app/daemon.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/audit_file.h"
#include "app/http_access.h"
#include "app/process_numbers.h"
#include "app/read_image.h"
#include "app/token_file.h"
#include "io/call_on.h"
#include "io/http_url.h"
#include "io/log.h"

namespace app {
namespace {

/// Main listener addresses that are used when none is configured; the second one is left out on
/// machines without IPv6.
bool is_dispensable(const io::HostPort& address, const std::system_error& failure) {
  const int error = failure.code().value();
  return address.host == "::1" && (error == EADDRNOTAVAIL || error == EAFNOSUPPORT);
}

bool is_local(const io::HostPort& address) {
  return io::SocketAddress::tcp(address.host, address.port).is_loopback();
}

io::HttpUrl node_url(const engine::EngineOptions& options) {
  if (options.node_url.empty()) return {};  // the engine makes no calls
  try {
    io::HttpUrl url = io::HttpUrl::parse(options.node_url);
    if (url.tls) throw std::invalid_argument("varve does not call the node by https://");
    static_cast<void>(url.base_path());
    return url;
  } catch (const std::invalid_argument& failure) {
    throw UsageError(fmt::format("--node-url {}: {}; write http://HOST:PORT",
                                 io::without_password(options.node_url), failure.what()));
  }
}

}  // namespace

Daemon::Daemon(ServeOptions options, std::vector<ActivatedSocket> activated, ServiceStatus& service)
    : options_(std::move(options)), activated_(std::move(activated)), service_(service) {
  options_.engine.version = VARVE_VERSION;
  options_.engine.pid = ::getpid();
  choose_places();
  choose_tls();
  choose_http_access();
  static_cast<void>(node_url(options_.engine));
}

Daemon::~Daemon() = default;

void Daemon::choose_places() {
  for (const ActivatedSocket& socket : activated_) {
    const bool api = socket.use == ActivatedSocket::Use::api;
    if (api && !options_.http_is_given) options_.http.host.clear();
    if (!api && !options_.nbd_is_given) options_.nbd.clear();
  }
}

/// What each listener does about TLS, decided before anything is touched.
void Daemon::choose_tls() {
  const auto mode_of = [this](const std::string& option, bool local,
                              std::optional<nbd::TlsMode> own) {
    return tls_mode_of(options_.tls, options_.allow_plain, {option, local, own});
  };
  for (const NbdAddress& address : options_.nbd) {
    tls_.of_addresses.push_back(
        mode_of("--nbd " + io::to_text(address), is_local(address), address.tls));
  }
  for (const ActivatedSocket& socket : activated_) {
    std::optional<nbd::TlsMode> own;
    if (socket.use == ActivatedSocket::Use::nbd_tls) own = nbd::TlsMode::require;
    const bool is_local = socket.is_local || socket.use == ActivatedSocket::Use::api;
    tls_.of_activated.push_back(mode_of(socket.name, is_local, own));
  }
  engine::EngineOptions& engine = options_.engine;
  engine.nbd_socket = options_.nbd_socket;
  engine.socket_tls = mode_of("--nbd-socket " + options_.nbd_socket, true, std::nullopt);
  if (!tls_.of_addresses.empty()) {
    engine.main_tls = tls_.of_addresses.front();
  } else {
    const auto first = std::ranges::find_if(activated_, [](const ActivatedSocket& socket) {
      return socket.use != ActivatedSocket::Use::api;
    });
    engine.main_tls = tls_.of_activated[static_cast<size_t>(first - activated_.begin())];
  }
  engine.ports_tls = mode_of("--ports", is_local({engine.ports_host, 0}), options_.ports_tls);
  tls_.credentials = load_tls(options_.tls);
  if (engine.export_access == nbd::ExportAccess::owner && !tls_.credentials) {
    throw UsageError("--export-access=owner needs TLS, which says who a client is: --tls-psk FILE");
  }
}

/// Beyond loopback HTTP asks for a token and TLS, as NBD there asks for TLS.
void Daemon::choose_http_access() {
  std::vector<HttpListener> listeners;
  const io::HostPort& http = options_.http;
  if (!http.host.empty()) listeners.push_back({"--http " + io::to_text(http), is_local(http)});
  for (const ActivatedSocket& socket : activated_) {
    if (socket.use == ActivatedSocket::Use::api) {
      listeners.push_back({socket.name, socket.is_local});
    }
  }
  check_http_access(options_, listeners);
  http_access_.tls = load_http_tls(options_);
}

void Daemon::start() {
  make_rings();
  io::call_and_wait(nbd_ring(), [this] { return bind_nbd(); });
  start_engine();
  io::call_and_wait(nbd_ring(), [this] { return listen_nbd(); });
  start_http();
  write_ready_file();
}

void Daemon::make_rings() {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  const unsigned count = options_.threads == 0 ? cores : options_.threads;
  io::RingThreadOptions ring;
  ring.shared_budget = std::make_shared<io::MemoryBudget>(options_.buffer_memory_bytes);
  control_ = std::make_unique<io::RingThread>("varve-control", ring);
  for (unsigned number = 0; number < count; ++number) {
    data_.push_back(std::make_unique<io::RingThread>(fmt::format("varve-data-{}", number), ring));
  }
}

io::Task<void> Daemon::bind_nbd() {
  for (size_t index = 0; index < options_.nbd.size(); ++index) {
    const io::HostPort& address = options_.nbd[index];
    try {
      auto listener = io::Listener::tcp(nbd_ring(), address, io::ListeningSocket::kStartPatience);
      bound_.push_back({std::move(listener), tls_access(tls_.of_addresses[index])});
    } catch (const std::system_error& failure) {
      if (bound_.empty() || !is_dispensable(address, failure)) throw;
      io::log(io::LogLevel::info, "nbd: {}; continuing without it", failure.what());
    }
  }
  for (size_t index = 0; index < activated_.size(); ++index) {
    ActivatedSocket& socket = activated_[index];
    if (socket.use == ActivatedSocket::Use::api) continue;
    bound_.push_back({io::Listener::adopt(nbd_ring(), std::move(socket.fd)),
                      tls_access(tls_.of_activated[index])});
  }
  options_.engine.nbd_port = 0;
  for (const Bound& bound : bound_) {
    nbd_addresses_.push_back(bound.listener->address());
    if (options_.engine.nbd_port == 0) options_.engine.nbd_port = bound.listener->port();
  }
  if (!options_.nbd_socket.empty()) {
    auto listener = io::Listener::unix_socket(nbd_ring(), options_.nbd_socket,
                                              io::ListeningSocket::kStartPatience);
    bound_.push_back({std::move(listener), tls_access(options_.engine.socket_tls)});
  }
  nbd::ServerSettings settings;
  settings.ports_tls = tls_access(options_.engine.ports_tls);
  settings.allowed = options_.allowed;
  nbd_ = std::make_unique<nbd::Server>(nbd_ring(), exports_, settings);
  co_return;
}

void Daemon::start_engine() {
  node_ = engine::make_node_client(control_->ring(), node_url(options_.engine));
  engine::EngineParts parts{.home = control_->runtime(),
                            .data = {},
                            .server_thread = nbd_ring(),
                            .server = *nbd_,
                            .exports = exports_,
                            .node = *node_};
  std::vector<io::Ring*> rings;
  for (const auto& thread : data_) {
    parts.data.push_back(thread->runtime());
    rings.push_back(&thread->ring());
  }
  readers_ = make_reader_processes(std::move(rings));
  parts.second_reader = readers_.get();
  notify_ = std::make_unique<NotifySender>(options_.notify, options_.engine.version);
  parts.notifier = notify_.get();
  engine_ = std::make_unique<engine::EngineImpl>(std::move(parts), options_.engine);
  service_.watch([this](std::function<void(std::string)> answer) { ask_status(answer); });
  engine_->start();
}

/// In one line, for `systemctl status`. The control thread answers, when it can.
void Daemon::ask_status(const std::function<void(std::string)>& answer) {
  control_->ring().post([this, answer] {
    const size_t jobs = engine_->running_jobs();
    std::string status = jobs == 0   ? "no backup is running"
                         : jobs == 1 ? "1 backup is running"
                                     : fmt::format("{} backups are running", jobs);
    for (const auto& [repository, cause] : engine_->unavailable_repositories()) {
      status += fmt::format("; repository {} is unavailable: {}", repository, cause);
    }
    answer(std::move(status));
  });
}

io::Task<void> Daemon::listen_nbd() {
  for (Bound& bound : bound_) {
    nbd_->listen(std::move(bound.listener), {}, std::move(bound.tls), &engine_->restore_exports());
  }
  bound_.clear();
  co_return;
}

void Daemon::start_http() {
  api::Settings settings;
  settings.version = options_.engine.version;
  settings.pid = options_.engine.pid;
  http_access_.tokens = std::make_shared<TokenFile>(*options_.tokens);
  http_access_.tokens->set_api_token(options_.api_token);
  settings.tokens = http_access_.tokens;
  if (!options_.audit_log->empty()) {
    settings.audit = [file = std::make_shared<AuditFile>(*options_.audit_log)](
                         std::string_view line) { file->write(line); };
  }
  settings.cors_origins = options_.cors_origins;
  settings.host_names = options_.http_names;
  if (!options_.http.host.empty()) settings.host_names.push_back(io::to_text(options_.http));
  settings.now = [this] {
    const io::WallTime now = control_->runtime().clock.wall_time();
    return std::chrono::floor<std::chrono::seconds>(now);
  };
  settings.on_failure = [](std::string_view text) {
    io::log(io::LogLevel::error, "http: {}", text);
  };
  settings.process = process_numbers;
  api_ = std::make_unique<api::Api>(*engine_, settings);
  api::HttpServerOptions http;
  if (!options_.http.host.empty()) http.addresses = {io::to_text(options_.http)};
  for (ActivatedSocket& socket : activated_) {
    if (socket.use == ActivatedSocket::Use::api) http.adopted.push_back(socket.fd.release());
  }
  http.unix_socket = options_.http_socket;
  http.tls = http_access_.tls;
  http_ = std::make_unique<api::HttpServer>(*api_, http);
  for (const std::string& address : http_->addresses()) {
    io::log(io::LogLevel::info, "http: listening on {}", address);
  }
}

std::string Daemon::ready_text() const {
  const nlohmann::json ready = {{"pid", options_.engine.pid},
                                {"http", http_->addresses().front()},
                                {"http_socket", options_.http_socket},
                                {"nbd", nbd_addresses_},
                                {"nbd_socket", options_.nbd_socket}};
  return ready.dump() + "\n";
}

void Daemon::write_ready_file() {
  if (options_.ready_file.empty()) return;
  io::call_and_wait(control_->ring(), [this] {
    return io::replace_text(control_->runtime(), options_.ready_file, ready_text());
  });
}

std::vector<Reloadable> Daemon::reloadables() {
  const auto follow_log = [](const ServeOptions& fresh) -> std::function<void()> {
    return [log = fresh.log] { io::configure_log(log.format, log.level); };
  };
  const auto follow_engine = [this](const ServeOptions& fresh) -> std::function<void()> {
    return [this, options = fresh.engine] { engine_->change(options); };
  };
  const auto follow_api_token = [this](const ServeOptions& fresh) -> std::function<void()> {
    return [this, token = fresh.api_token] { http_access_.tokens->set_api_token(token); };
  };
  return {
      {{"log-format", "log-level"}, follow_log},
      {{"first-connect", "disconnect-grace", "stall", "nbd-idle", "max-duration", "point-idle",
        "reader-patience", "commit-interval", "commit-bytes", "keep-partial-for", "write-elision",
        "failed-images", "space-reserve", "scrub-interval", "scrub-rate", "verify-restores",
        "secrets"},
       follow_engine},
      {{"tls-certificates", "tls-psk", "tls-verify-peer", "tls-allowed-name"},
       [this](const ServeOptions& fresh) { return prepare_tls(fresh); }},
      {{"tls-certificates"}, [this](const ServeOptions& fresh) { return prepare_http_tls(fresh); }},
      {{"api-token", "api-token-file"}, follow_api_token},
  };
}

/// New credentials in the place of old ones. Where there were none the listeners speak plain NBD,
/// which does not change while they listen.
std::optional<std::function<void()>> Daemon::prepare_tls(const ServeOptions& fresh) {
  auto credentials = load_tls(fresh.tls);
  if (!tls_.credentials || !credentials) return std::nullopt;
  return [this, credentials = std::move(credentials)] {
    tls_.credentials = credentials;
    io::call_and_wait(nbd_ring(), [this]() -> io::Task<void> {
      nbd_->change_credentials(tls_.credentials);
      co_return;
    });
    io::log(io::LogLevel::info, "nbd: clients that connect now get the TLS credentials just read");
  };
}

/// Connections that are open keep theirs. The mode stays: what listens does not change.
std::optional<std::function<void()>> Daemon::prepare_http_tls(const ServeOptions& fresh) {
  if (http_access_.tls.mode == api::HttpTlsMode::off) return std::nullopt;
  api::HttpTls tls = load_http_tls(fresh);
  if (tls.mode == api::HttpTlsMode::off) return std::nullopt;
  // Whether other hosts may do without TLS waits for the next start as well.
  tls.mode = http_access_.tls.mode;
  tls.plain_beyond_loopback = http_access_.tls.plain_beyond_loopback;
  return [this, tls = std::move(tls)] {
    http_->use_tls(tls);  // tried before, by load_http_tls()
    io::log(io::LogLevel::info, "http: clients that connect now get the certificates just read");
  };
}

void Daemon::stop() {
  // A start that waits for the node must not hold the others up.
  if (node_) node_->stop();
  // The API still answers while the engine ends its jobs: a `complete` that is being published
  // gets its 200.
  if (engine_) engine_->stop();
  service_.unwatch();
  if (http_) http_->stop();
  if (nbd_) {
    io::call_and_wait(nbd_ring(), [this]() -> io::Task<void> {
      bound_.clear();
      co_await nbd_->stop();
      nbd_.reset();
    });
  }
  http_.reset();
  api_.reset();
  engine_.reset();
  notify_.reset();
  node_.reset();
  for (const auto& thread : data_) thread->stop();
  if (control_) control_->stop();
}

}  // namespace app
