// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/access.h"
#include "api/http_tls.h"
#include "app/notify/options.h"
#include "app/tls_files.h"
#include "engine/values/options.h"
#include "io/address.h"
#include "io/log.h"
#include "io/networks.h"

/// The command line and the configuration file, as plain values.
namespace app {

/// A command line or configuration that cannot be followed; the process exits with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct LogOptions {
  io::LogFormat format = io::LogFormat::text;
  io::LogLevel level = io::LogLevel::info;
};

/// A TCP address of the NBD server, with what a `,tls=MODE` after it says.
struct NbdAddress : io::HostPort {
  std::optional<nbd::TlsMode> tls{};
};

/// What was said of a setting of `varve serve`, and where.
struct SettingValue {
  std::vector<std::string> values;  ///< more than one for a repeatable one
  std::string origin;  ///< "/etc/varve/varve.toml:12", "command line", "credential …"
};

/// What the command line of `varve serve` says.
struct ServeArguments {
  std::string config_file;                                 ///< "": the default one, if it exists
  std::map<std::string, std::vector<std::string>> values;  ///< by the setting's name
};

/// `varve serve`
struct ServeOptions {
  ServeArguments arguments;                  ///< to read the file again (SIGHUP)
  std::string config_file;                   ///< that was read; "": none
  std::map<std::string, SettingValue> said;  ///< by the setting's name; the others have defaults
  engine::EngineOptions engine;
  io::HostPort http{"127.0.0.1", 8082};
  std::string http_socket;
  std::vector<NbdAddress> nbd;  ///< empty: loopback, both families, port 10809
  std::string nbd_socket;
  bool nbd_is_given = false, http_is_given = false;  ///< else sockets of activation replace them
  unsigned threads = 0;                              ///< 0: one a core
  std::string ready_file;
  std::string api_token;                 ///< with every scope; "": none
  std::optional<std::string> tokens;     ///< file of tokens with scopes; none: beside the catalogue
  std::optional<std::string> audit_log;  ///< file; "": none; none: beside the catalogue
  std::optional<api::HttpTlsMode> http_tls;  ///< none: on with certificates, else off
  bool allow_plain_http = false;             ///< HTTP without TLS beyond loopback is meant
  std::vector<std::string> cors_origins;
  std::vector<std::string> http_names;  ///< hosts that HTTP clients may ask for, beside loopback's
  bool allow_no_token = false;          ///< HTTP without a token beyond loopback is meant
  bool allow_plain = false;             ///< NBD without TLS beyond loopback is meant
  TlsOptions tls;
  std::optional<nbd::TlsMode> ports_tls;             ///< of the ports that serve one disk each
  io::Networks allowed;                              ///< whose NBD clients are served; empty: all
  uint64_t buffer_memory_bytes = uint64_t{1} << 30;  ///< of all connections (X5)
  NotifyOptions notify;
  LogOptions log;
};

/// `varve create`
struct CreateOptions {
  std::string file;
  uint64_t size_bytes = 0;  ///< 0: that of the backing file
  std::string backing;      ///< "": none
  bool json = false;
  bool bytes = false;  ///< the size as exact bytes
};

/// `varve check`
struct CheckOptions {
  std::string target;     ///< an image, a sidecar, or a name of the catalogue
  std::string catalogue;  ///< "": that of `varve serve`
  std::string config;     ///< "": the default file, if it exists
  bool json = false;
};

/// `varve config`
struct ConfigOptions {
  enum class Verb : uint8_t { check, show, example };
  Verb verb = Verb::check;
  std::string config;  ///< "": the default file, if it exists
  bool json = false;
};

/// `varve catalogue backup`
struct CatalogueBackupOptions {
  std::string target;
  std::string catalogue;  ///< "": that of `varve serve`
  std::string config;     ///< "": the default file, if it exists
  bool force = false;     ///< an existing target is replaced
  bool json = false;
  bool bytes = false;  ///< the size as exact bytes
};

/// `varve rebuild`
struct RebuildOptions {
  std::string repository;  ///< "": that of `varve serve`
  std::string repository_id = "1";
  std::string catalogue;  ///< "": that of `varve serve`
  std::string config;     ///< "": the default file, if it exists
  bool json = false;
};

/// `varve restore`
struct RestoreOptions {
  std::string vm_name;
  std::string point = "latest";  ///< backup id, "latest" or RFC 3339 time
  uint32_t disk_id = 0;
  std::string target;     ///< a file, a block device, or an NBD URI; "" with all_disks
  std::string all_disks;  ///< a directory that gets a raw file for each disk; "": one disk
  std::string since;      ///< the point that the target holds: only what differs is sent; "": none
  bool resume = false, force = false, json = false;
  std::string server = "http://127.0.0.1:8082", token;
  uint32_t connections = 4, requests = 16;  ///< and requests under way for each
  TlsClientFiles tls;                       ///< of nbds, of the server and of the target
};

/// Before the path of an image whose disk is the source.
inline constexpr std::string_view kImagePrefix = "qcow2:";

/// `varve pull`: one disk of it.
struct PullDisk {
  uint32_t index = 0;
  std::string label{};      ///< by which libvirt's disks are known again; "": by the index
  std::string source;       ///< a file, a block device, an NBD URI, or qcow2:IMAGE
  std::string bitmap{};     ///< of the source's qemu:dirty-bitmap contexts; "": none
  bool layer_only = false;  ///< of qcow2: the image without its backing files
  std::string changed{};    ///< a file that lists what has changed; "": none
};

/// `varve pull`
struct PullOptions {
  std::string vm_name, repository_id = "1";
  std::string libvirt_domain;   ///< "": the disks are named
  std::string libvirt_connect;  ///< libvirt's URI; "": its default
  bool libvirt_freeze = true;
  std::vector<PullDisk> disks;  ///< ascending index; none of a libvirt domain
  std::string checkpoint;       ///< names the state that is read; "": nothing stands on it later
  std::string since;            ///< names the state that the changes are against; "": full
  std::string base;             ///< the same as a backup id; "": what `since` says
  bool full = false, trim_source = false, json = false;
  /// Everything is sent, and what differs from the newest point is stored.
  bool into_chain = false;
  /// The same, and told is what differs although the changes do not name it.
  bool check_tracking = false;
  bool keep_partial = true;  ///< if it fails, what has arrived stays at the server
  std::string resume;        ///< id of the failed backup to resume; "": start a new one
  io::Duration server_patience = std::chrono::minutes(2);  ///< while it does not answer
  /// Only what verifications have found damaged in the newest point is sent, where it is the same.
  bool repair = false;
  double sampled_share = 0;  ///< of what is called clean, compared with the newest point; 0: none
  std::string server = "http://127.0.0.1:8082", token;
  uint32_t connections = 4, requests = 64;  ///< and requests under way for each
  uint64_t request_bytes = 1 << 20, bytes_per_second = 0;
  TlsClientFiles tls;  ///< of nbds, of sources and of the server
};

/// `varve adopt`
struct AdoptOptions {
  /// What becomes one backup each: an image for each disk, ascending index, `layer_only`.
  std::vector<std::vector<PullDisk>> layers;
  std::string parent;                    ///< backup id or "latest", the first layer's; "": none
  std::vector<std::string> checkpoints;  ///< as many as layers, or none
  PullOptions pull;                      ///< the rest, of every layer
};

/// `varve verify`
struct VerifyOptions {
  std::string vm_name;  ///< "": every point there is
  std::string point;    ///< backup id, "latest" or RFC 3339 time; "": all points of the VM
  std::vector<std::string> readers;  ///< none: all there are
  uint32_t skip_days = 0;
  uint64_t bytes_per_second = 0;
  io::Duration server_patience = std::chrono::seconds(60);  ///< while it does not answer
  bool json = false;
  std::string server = "http://127.0.0.1:8082", token;
  std::string certificates;  ///< of https: a directory; "": the usual ones
};

/// `varve token add`, `varve token list` and `varve token revoke`
struct TokenOptions {
  enum class Verb : uint8_t { add, list, revoke };
  Verb verb = Verb::list;
  std::string name;                ///< of add and revoke
  std::vector<api::Scope> scopes;  ///< of add
  std::string file;                ///< "": that of `varve serve`
  std::string config;              ///< "": the default file, if it exists
  bool json = false;
  bool utc = false;  ///< of list: times in UTC
};

/// `varve read-image`, of which only `varve serve` knows: docs/verify.md.
struct ReadImageOptions {
  std::string image;
  uint64_t cluster_bytes = 0;
  int64_t parent = 0;  ///< the process that asks; without it there is nothing to do
};

/// `varve nbd`
struct NbdOptions {
  std::string file;               ///< or a backup id, which is looked up
  std::optional<uint32_t> disk;   ///< of a backup; absent: its only one
  std::string catalogue, config;  ///< where it is looked up; "": as `varve serve` would
  std::string socket;             ///< "": TCP; "-": in a private directory, which goes at the end
  std::string bind = "127.0.0.1";
  uint16_t port = 10809;
  bool place_is_given = false;  ///< socket, port or address
  std::string export_name;      ///< "": that of the file; the empty name opens it in any case
  std::string description;
  uint32_t connections_max = 64;
  bool read_only = false;
  std::string run;       ///< a shell command to serve while it runs; "": until a signal
  std::string pid_file;  ///< "": none
  bool fork = false;     ///< into the background once the server listens
  bool list = false;     ///< list the exports of a server instead
  bool allow_plain = false;
  TlsOptions tls;
  io::Networks allowed;
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;
  bool no_hole_allocates = false;  ///< else NO_HOLE makes clusters that read as zero
  bool quiet = false;              ///< warnings and errors only
  LogOptions log;
};

/// `varve --version`, `--help`: a text for standard output, and nothing to do.
struct PrintText {
  std::string text;
};

/// The configuration file, credentials of the service manager, and the command line, which wins.
/// Throws UsageError with file, line and cause.
ServeOptions serve_options(const ServeArguments& arguments);

/// What `varve serve` would do with this configuration file, "" being the default one, and no
/// option on the command line. Throws UsageError.
ServeOptions configured(const std::string& config_file);

/// "90s", "10m", "1h", "250ms"; "0" is zero. Throws UsageError.
io::Duration parse_duration(std::string_view text);
/// "1073741824", "64K", "10g", "64MiB" (powers of 1024), "10GB" (powers of 1000). Throws
/// UsageError.
uint64_t parse_size(std::string_view text);

/// The same, from 1M to 16G. Throws UsageError.
uint64_t parse_commit_bytes(std::string_view text);

/// Where varve keeps what has no configured place: $STATE_DIRECTORY of a service, /var/lib/varve
/// for root, else $XDG_DATA_HOME/varve or ~/.local/share/varve. Throws UsageError when there is
/// none.
std::string default_state_directory();

/// Absolute, without `.`, `..`, doubled and closing slashes: what is stored must mean the same
/// whatever directory varve is started in.
std::string absolute_path(const std::string& path);

/// Build features and what this kernel's io_uring offers.
std::string version_text();
/// The same as one JSON object.
std::string version_json();

}  // namespace app
