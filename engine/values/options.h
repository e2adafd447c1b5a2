// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "engine/values/types.h"
#include "io/clock.h"
#include "nbd/export.h"
#include "nbd/tls.h"

/// How an engine is set up: the options of `varve serve`, as far as they concern it. Plain values;
/// never changed once the engine runs.
namespace engine {

/// When a running job is given up (docs/jobs.md, "Timeouts"). Zero switches one off.
struct JobTimeouts {
  io::Duration first_connect = std::chrono::minutes(10);
  io::Duration disconnect_grace = std::chrono::seconds(60);
  io::Duration stall = std::chrono::minutes(15);
  io::Duration nbd_idle = std::chrono::minutes(60);
  io::Duration max_duration = io::Duration::zero();
};

/// Ports of which each serves one export, both ends included.
struct PortNumbers {
  uint16_t first = 10100;
  uint16_t last = 10200;
};

/// Which port is written into the targets that the node is given.
enum class TargetsMode : uint8_t {
  ports,  ///< one of the range per disk
  names,  ///< the main listener's, for all; no range port is taken
};

/// What becomes of the images of a failed job.
enum class FailedImages : uint8_t { remove, quarantine };

struct EngineOptions {
  std::string version;
  int64_t pid = 0;

  std::string catalogue_path;
  /// Of repository "1", which is made at the first start.
  std::string repository_path;
  /// Secrets that credentials may name: {"ref":"vc1"}.
  std::map<std::string, Credentials> named_secrets;

  std::optional<PortNumbers> ports = PortNumbers{};  ///< none: no port per disk
  std::string ports_host = "127.0.0.1";
  TargetsMode targets = TargetsMode::ports;
  std::string advertised_host = "127.0.0.1";  ///< written into targets
  /// Of the main listener, as really bound: for TargetsMode::names and for URIs. 0: there is none.
  uint16_t nbd_port = 10809;
  /// A Unix socket with every export by name; "": there is none.
  std::string nbd_socket;
  uint32_t connections_per_export = 64;
  /// Of the main listener, the ports and the Unix socket: for URIs, and for targets.
  nbd::TlsMode main_tls = nbd::TlsMode::off, ports_tls = nbd::TlsMode::off,
               socket_tls = nbd::TlsMode::off;
  nbd::ExportAccess export_access = nbd::ExportAccess::anybody;

  /// "" switches the node call off: an operator starts the writer by hand.
  std::string node_url = "http://localhost:9081";

  JobTimeouts timeouts;
  FailedImages failed_images = FailedImages::remove;
  /// How long what has arrived waits for a job that resumes it; zero: for ever.
  io::Duration keep_partial_for = std::chrono::hours(7 * 24);
  /// Data are made durable after this time or this much, whichever is first.
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;
  /// What the chain holds already is not stored (qcow/image/elision.h).
  bool write_elision = true;

  /// How often running jobs are looked at; shortened when a timeout is shorter.
  io::Duration watch_interval = std::chrono::seconds(1);
  io::Duration sample_interval = std::chrono::seconds(5);
  /// While health is being polled, how often the catalogue is tried with a small write.
  io::Duration catalogue_trial_interval = std::chrono::seconds(5);
  /// How often repositories are looked at: those that are unavailable are tried again.
  io::Duration repository_interval = std::chrono::seconds(5);
  /// How long the start of varve, and a look, wait before a silent repository is unavailable.
  io::Duration repository_patience = std::chrono::seconds(10);
  /// How long the second reader of a verification may take for its next mebibyte of an image.
  io::Duration second_reader_patience = std::chrono::seconds(30);
  /// How long a point stays open without readers.
  io::Duration point_idle = std::chrono::seconds(30);
  /// The first pause before a publish or a deletion that was held up is tried again. It doubles.
  io::Duration retry_interval = std::chrono::seconds(1);
  /// A point is proven again once its last proof is this old; zero: only when somebody asks.
  io::Duration scrub_interval = io::Duration::zero();
  /// Read in a second by the proofs of that schedule; 0: as fast as it goes.
  uint64_t scrub_bytes_per_second = 64 << 20;
  /// How often a good point of each VM is expected that says nothing else; zero: never.
  std::chrono::seconds expected_interval = std::chrono::seconds(0);
  /// What is read of points is compared with what was sent, where that is known.
  bool verify_restores = true;
  /// Free space of a repository below which no job is started and running ones are failed; none:
  /// 1 GiB, or one percent of the file system when that is less.
  std::optional<uint64_t> space_reserve_bytes;
};

}  // namespace engine
