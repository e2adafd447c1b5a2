// SPDX-License-Identifier: Apache-2.0
#include "app/settings.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/notify/options.h"
#include "app/setting_kinds.h"

namespace app {
namespace {

using Values = Setting::Values;

/// "192.0.2.1:8082"; of loopback also ":8082" and "8082".
io::HostPort address(const std::string& text, uint16_t usual_port) {
  const std::string digits = text.starts_with(':') ? text.substr(1) : text;
  const bool is_port = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                      [](char c) { return c >= '0' && c <= '9'; });
  if (is_port) return {"127.0.0.1", whole_number<uint16_t>(digits, 0, UINT16_MAX)};
  try {
    return io::parse_host_port(text);
  } catch (const std::invalid_argument&) {
    throw UsageError(
        fmt::format("\"{}\" is not an address; write HOST:PORT or, for loopback, PORT: "
                    "127.0.0.1:{} or {}",
                    text, usual_port, usual_port));
  }
}

/// "127.0.0.1:10809" or "192.0.2.1:10809,tls=require".
NbdAddress nbd_address(const std::string& text) {
  constexpr std::string_view kTls = ",tls=";
  if (text.starts_with("vsock:")) throw UsageError("vsock is not offered yet; write HOST:PORT");
  const size_t comma = std::min(text.find(kTls), text.size());
  NbdAddress listener{address(text.substr(0, comma), 10809)};
  if (comma < text.size()) listener.tls = parse_tls_mode(text.substr(comma + kTls.size()));
  return listener;
}

/// A token that stands alone in a file of its own.
std::string read_token(const std::string& path) {
  std::string token = read_private_file(path, nullptr);
  while (token.ends_with('\n') || token.ends_with('\r') || token.ends_with(' ')) token.pop_back();
  if (token.empty() || token.find_first_of(" \t\r\n") != std::string::npos) {
    throw UsageError(path + " is not one token and nothing else");
  }
  return token;
}

std::optional<engine::PortNumbers> port_range(const std::string& text) {
  if (text == "none") return std::nullopt;
  const size_t dash = text.find('-');
  if (dash == std::string::npos) {
    throw UsageError(fmt::format("\"{}\" is not a range of ports; write FIRST-LAST or none", text));
  }
  engine::PortNumbers ports;
  ports.first = whole_number<uint16_t>(text.substr(0, dash), 1, UINT16_MAX);
  ports.last = whole_number<uint16_t>(text.substr(dash + 1), ports.first, UINT16_MAX);
  return ports;
}

/// What --ports reads as the same.
std::string port_range_text(const std::optional<engine::PortNumbers>& ports) {
  return ports ? fmt::format("{}-{}", ports->first, ports->last) : "none";
}

uint64_t parse_buffer_memory(std::string_view text) {
  const uint64_t bytes = parse_size(text);
  if (bytes < (256 << 20)) throw UsageError("less than 256M");
  return bytes;
}

/// Shown as well, for settings whose parsing is their own.
Setting with_show(Setting setting, std::function<Values(ServeOptions&)> show) {
  setting.show = std::move(show);
  return setting;
}

Setting secret(Setting setting) {
  setting.is_secret = true;
  return setting;
}

Setting with_private_part(Setting setting) {
  setting.is_private = true;
  return setting;
}

/// "https://hooks.example.com/…": who knows the path of many a webhook may write there.
std::string without_path(const std::string& url) {
  const size_t host = url.find("://") + std::string_view("://").size();
  const size_t end = url.find_first_of("/?#", host);
  if (end == std::string::npos || url.substr(end) == "/") return url;
  return url.substr(0, end) + "/…";
}

std::vector<Setting> storage_settings() {
  return {
      text_setting("repository", "DIR", "directory of repository \"1\"",
                   [](ServeOptions& o) -> std::string& { return o.engine.repository_path; }),
      text_setting("catalogue", "FILE", "the catalogue, an SQLite file",
                   [](ServeOptions& o) -> std::string& { return o.engine.catalogue_path; }),
      choice_setting<engine::FailedImages>(
          "failed-images", "WHAT", "images of failed jobs: remove (default) or quarantine",
          [](ServeOptions& o) -> engine::FailedImages& { return o.engine.failed_images; },
          {{"remove", engine::FailedImages::remove},
           {"quarantine", engine::FailedImages::quarantine}}),
      {"space-reserve", "SIZE",
       "free space below which no job starts and running jobs are failed\n"
       "(default 1G, or 1 % of the file system when that is less; 0: none)",
       [](ServeOptions& o, const Values& values) {
         o.engine.space_reserve_bytes = parse_size(values.back());
       }},
  };
}

std::vector<Setting> http_settings() {
  return {
      with_show({"http", "HOST:PORT", "HTTP API (default 127.0.0.1:8082)",
                 [](ServeOptions& o, const Values& values) {
                   o.http = address(values.back(), 8082);
                   o.http_is_given = true;
                 }},
                [](ServeOptions& o) -> Values { return {io::to_text(o.http)}; }),
      text_setting("http-socket", "PATH", "HTTP API on a Unix socket too",
                   [](ServeOptions& o) -> std::string& { return o.http_socket; }),
      secret(text_setting("api-token", "TOKEN",
                          "token that HTTP requests must carry, with every scope; on the\n"
                          "command line everybody sees it in ps",
                          [](ServeOptions& o) -> std::string& { return o.api_token; })),
      {"api-token-file", "FILE", "file of mode 0600 that holds it",
       [](ServeOptions& o, const Values& values) { o.api_token = read_token(values.back()); }},
      with_show({"tokens", "FILE",
                 "tokens with scopes, of `varve token add` (default: the file\n"
                 "tokens beside the catalogue)",
                 [](ServeOptions& o, const Values& values) { o.tokens = values.back(); }},
                [](ServeOptions& o) -> Values { return {o.tokens.value_or("")}; }),
      flag_setting("allow-no-token", "listen for HTTP without a token beyond loopback",
                   [](ServeOptions& o) -> bool& { return o.allow_no_token; }),
      {"http-tls", "MODE",
       "TLS of HTTP, by --tls-certificates: off, on (plain HTTP is\n"
       "taken too, from loopback) or require (default: on with\n"
       "certificates, else off)",
       [](ServeOptions& o, const Values& values) {
         o.http_tls =
             one_of<api::HttpTlsMode>(values.back(), {{"off", api::HttpTlsMode::off},
                                                      {"on", api::HttpTlsMode::on},
                                                      {"require", api::HttpTlsMode::require}});
       }},
      flag_setting("allow-plain-http", "take HTTP without TLS beyond loopback",
                   [](ServeOptions& o) -> bool& { return o.allow_plain_http; }),
      with_show({"audit-log", "FILE",
                 "where each change by HTTP is written (default: audit.jsonl\n"
                 "beside the catalogue; \"\": nowhere)",
                 [](ServeOptions& o, const Values& values) { o.audit_log = values.back(); }},
                [](ServeOptions& o) -> Values { return {o.audit_log.value_or("")}; }),
      list_setting("http-name", "HOST",
                   "name that HTTP clients reach varve under (their header Host),\n"
                   "beside those of loopback; may be given several times",
                   [](ServeOptions& o) -> Values& { return o.http_names; }),
      list_setting("cors-origin", "ORIGIN",
                   "origin that browsers may call from; may be given several times",
                   [](ServeOptions& o) -> Values& { return o.cors_origins; }),
  };
}

std::vector<Setting> nbd_settings() {
  return {
      with_show({"nbd", "HOST:PORT",
                 "NBD with every export by name; may be given several times\n"
                 "(default 127.0.0.1:10809 and [::1]:10809); append\n"
                 ",tls=MODE for a TLS mode of its own",
                 [](ServeOptions& o, const Values& values) {
                   o.nbd.clear();
                   o.nbd_is_given = true;
                   for (const std::string& value : values) o.nbd.push_back(nbd_address(value));
                 },
                 true},
                [](ServeOptions& o) {
                  Values values;
                  for (const NbdAddress& one : o.nbd) values.push_back(io::to_text(one));
                  return values;
                }),
      text_setting("nbd-socket", "PATH", "NBD on a Unix socket too",
                   [](ServeOptions& o) -> std::string& { return o.nbd_socket; }),
      with_show({"ports", "FIRST-LAST", "one NBD port per disk (default 10100-10200), or none",
                 [](ServeOptions& o, const Values& values) {
                   o.engine.ports = port_range(values.back());
                 }},
                [](ServeOptions& o) -> Values { return {port_range_text(o.engine.ports)}; }),
      choice_setting<engine::TargetsMode>(
          "targets", "MODE", "ports written into nbd_targets: ports (default) or names",
          [](ServeOptions& o) -> engine::TargetsMode& { return o.engine.targets; },
          {{"ports", engine::TargetsMode::ports}, {"names", engine::TargetsMode::names}}),
      text_setting("advertised-host", "HOST", "host written into nbd_targets (default 127.0.0.1)",
                   [](ServeOptions& o) -> std::string& { return o.engine.advertised_host; }),
      number_setting<uint32_t>(
          "connections", "NBD connections per export, 16 to 1024 (default 64)",
          [](ServeOptions& o) -> uint32_t& { return o.engine.connections_per_export; }, 16, 1024),
      flag_setting("allow-plain", "listen for NBD without TLS beyond loopback",
                   [](ServeOptions& o) -> bool& { return o.allow_plain; }),
  };
}

std::vector<Setting> node_settings() {
  return {
      text_setting("node-url", "URL",
                   "node API (default http://localhost:9081); \"\" switches the call off",
                   [](ServeOptions& o) -> std::string& { return o.engine.node_url; }),
  };
}

std::vector<Setting> access_settings() {
  return {
      {"tls", "MODE", kTlsHelp,
       [](ServeOptions& o, const Values& values) { o.tls.mode = parse_tls_mode(values.back()); }},
      text_setting("tls-certificates", "DIR", kTlsCertificatesHelp,
                   [](ServeOptions& o) -> std::string& { return o.tls.certificates; }),
      text_setting("tls-psk", "FILE", kTlsPskHelp,
                   [](ServeOptions& o) -> std::string& { return o.tls.psk; }),
      flag_setting("tls-verify-peer", kTlsVerifyPeerHelp,
                   [](ServeOptions& o) -> bool& { return o.tls.verify_peer; }),
      list_setting("tls-allowed-name", "NAME", kTlsAllowedNameHelp,
                   [](ServeOptions& o) -> Values& { return o.tls.allowed_names; }),
      {"ports-tls", "MODE", "TLS mode of the ports that serve one disk each (default: as --tls)",
       [](ServeOptions& o, const Values& values) { o.ports_tls = parse_tls_mode(values.back()); }},
      choice_setting<nbd::ExportAccess>(
          "export-access", "WHO",
          "who may open a job's exports: anybody (default), name (their\n"
          "names carry a secret and are not listed) or owner (the TLS\n"
          "user whose name is the job's)",
          [](ServeOptions& o) -> nbd::ExportAccess& { return o.engine.export_access; },
          {{"anybody", nbd::ExportAccess::anybody},
           {"name", nbd::ExportAccess::by_name},
           {"owner", nbd::ExportAccess::owner}}),
      {"allow-address", "CIDR", kAllowAddressHelp,
       [](ServeOptions& o, const Values& values) { o.allowed = parse_networks(values); }, true},
      size_setting(
          "buffer-memory", "memory for data on its way, 256M or more (default 1G)",
          [](ServeOptions& o) -> uint64_t& { return o.buffer_memory_bytes; }, parse_buffer_memory),
  };
}

std::vector<Setting> life_cycle_settings() {
  return {
      duration_setting(
          "first-connect", "patience for the first NBD connection (default 10m)",
          [](ServeOptions& o) -> io::Duration& { return o.engine.timeouts.first_connect; }),
      duration_setting(
          "disconnect-grace", "patience for a client that is gone (default 60s)",
          [](ServeOptions& o) -> io::Duration& { return o.engine.timeouts.disconnect_grace; }),
      duration_setting("stall", "patience without NBD bytes and telemetry (default 15m)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.timeouts.stall; }),
      duration_setting("nbd-idle", "patience without NBD bytes (default 60m)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.timeouts.nbd_idle; }),
      duration_setting(
          "max-duration", "longest job (default 0: no limit)",
          [](ServeOptions& o) -> io::Duration& { return o.engine.timeouts.max_duration; }),
      duration_setting("point-idle",
                       "how long a restore point stays open without readers (default 30s)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.point_idle; }),
      duration_setting(
          "reader-patience",
          "how long libqcow may take for the next mebibyte of an image that is\n"
          "verified (default 30s)",
          [](ServeOptions& o) -> io::Duration& { return o.engine.second_reader_patience; }),
      duration_setting("commit-interval", "longest time between two commits (default 1s)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.commit_interval; }),
      size_setting(
          "commit-bytes", "most data between two commits (default 256M)",
          [](ServeOptions& o) -> uint64_t& { return o.engine.commit_bytes; }, parse_commit_bytes),
      duration_setting("keep-partial-for",
                       "how long what arrived in a failed backup waits to be resumed,\n"
                       "where it was to be kept (default 7d; 0: for ever)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.keep_partial_for; }),
      truth_setting("write-elision", "store nothing that the chain holds already (default true)",
                    [](ServeOptions& o) -> bool& { return o.engine.write_elision; }),
  };
}

std::vector<Setting> verification_settings() {
  return {
      duration_setting("scrub-interval",
                       "age at which a point's last proof is made anew, 7d say\n"
                       "(default 0: only when asked)",
                       [](ServeOptions& o) -> io::Duration& { return o.engine.scrub_interval; }),
      size_setting(
          "scrub-rate", "bytes per second that this reads (default 64M; 0: no limit)",
          [](ServeOptions& o) -> uint64_t& { return o.engine.scrub_bytes_per_second; }, parse_size),
      truth_setting("verify-restores",
                    "compare what is read of points with what was sent: true\n"
                    "(default) or false",
                    [](ServeOptions& o) -> bool& { return o.engine.verify_restores; }),
  };
}

std::vector<Setting> notification_settings() {
  return {
      with_show(
          {"expected-interval", "TIME",
           "how often a good backup of each VM is expected that says nothing\n"
           "else, 25h say: without one it is overdue (default 0: never)",
           [](ServeOptions& o, const Values& values) {
             o.engine.expected_interval =
                 std::chrono::duration_cast<std::chrono::seconds>(parse_duration(values.back()));
           }},
          [](ServeOptions& o) -> Values { return {duration_value(o.engine.expected_interval)}; }),
      with_private_part(
          with_show({"notify-url", "URL",
                     "webhook: each event is sent there as a POST of JSON; may be given\n"
                     "several times. Its path may be a secret: keep it in a file",
                     [](ServeOptions& o, const Values& values) {
                       for (const std::string& url : values) parse_webhook_url(url);
                       o.notify.urls = values;
                     },
                     true},
                    [](ServeOptions& o) {
                      Values shown;
                      for (const std::string& url : o.notify.urls)
                        shown.push_back(without_path(url));
                      return shown;
                    })),
      list_setting("notify-command", "COMMAND",
                   "shell command that is run for events, with VARVE_EVENT and others\n"
                   "in its environment and JSON at its standard input; may be given\n"
                   "several times",
                   [](ServeOptions& o) -> Values& { return o.notify.commands; }),
      with_show({"notify-on", "EVENTS",
                 "which events: completed, failed, cancelled, damaged, space,\n"
                 "unavailable, overdue, separated by commas; all or none\n"
                 "(default failed,damaged,space,unavailable,overdue)",
                 [](ServeOptions& o, const Values& values) {
                   o.notify.on = parse_events(values.back());
                 }},
                [](ServeOptions& o) -> Values { return {events_text(o.notify.on)}; }),
  };
}

std::vector<Setting> process_settings() {
  return {
      {"threads", "N", "ring threads (default: the cores)",
       [](ServeOptions& o, const Values& values) {
         o.threads = whole_number<unsigned>(values.back(), 1, 256);
       }},
      text_setting("ready-file", "PATH", "written once varve serves, with the addresses bound",
                   [](ServeOptions& o) -> std::string& { return o.ready_file; }),
      choice_setting<io::LogFormat>("log-format", "FORMAT",
                                    "text (default; with fields in the journal) or json",
                                    [](ServeOptions& o) -> io::LogFormat& { return o.log.format; },
                                    {{"text", io::LogFormat::text}, {"json", io::LogFormat::json}}),
      choice_setting<io::LogLevel>("log-level", "LEVEL", "debug, info (default), warning or error",
                                   [](ServeOptions& o) -> io::LogLevel& { return o.log.level; },
                                   {{"debug", io::LogLevel::debug},
                                    {"info", io::LogLevel::info},
                                    {"warning", io::LogLevel::warning},
                                    {"error", io::LogLevel::error}}),
  };
}

}  // namespace

io::Networks parse_networks(const std::vector<std::string>& ranges) {
  io::Networks networks;
  try {
    for (const std::string& range : ranges) networks.add(range);
  } catch (const std::invalid_argument& failure) {
    throw UsageError(failure.what());
  }
  return networks;
}

const std::vector<Setting>& serve_settings() {
  static const std::vector<Setting> all = [] {
    std::vector<Setting> settings;
    const std::pair<const char*, std::vector<Setting>> parts[] = {
        {"Storage", storage_settings()},
        {"HTTP", http_settings()},
        {"NBD", nbd_settings()},
        {"Access to NBD", access_settings()},
        {"Node", node_settings()},
        {"Life of a backup", life_cycle_settings()},
        {"Verification", verification_settings()},
        {"Notifications", notification_settings()},
        {"Process", process_settings()}};
    for (const auto& [group, part] : parts) {
      for (Setting setting : part) {
        setting.group = group;
        settings.push_back(std::move(setting));
      }
    }
    return settings;
  }();
  return all;
}

}  // namespace app
