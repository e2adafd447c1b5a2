// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "app/api_call.h"
#include "app/commands.h"
#include "app/copy_report.h"
#include "app/exit_status.h"
#include "app/interruption.h"
#include "app/nbd_connection.h"
#include "app/restore/target.h"
#include "io/failure.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/percent_encoding.h"
#include "io/ring_thread.h"

/// `varve restore`: from an NBD export of a running `varve serve` to wherever a disk is wanted.
namespace app {
namespace {

constexpr io::Duration kKeepInterval = std::chrono::seconds(5);
constexpr uint64_t kRequestBytes = 1 << 20;

struct SourcePoint {
  std::string backup_id, export_name;
  uint32_t disk_id = 0;
  uint64_t size = 0;
  nbd::Uri uri;
};

/// What the server answers for GET /points; its own words when it refuses.
std::vector<SourcePoint> ask_for_points(const RestoreOptions& options, const std::string& point,
                                        std::optional<uint32_t> disk) {
  std::string target =
      fmt::format("/points?vm_name={}&point={}", io::percent_encoded(options.vm_name),
                  io::percent_encoded(point));
  if (disk) target += fmt::format("&disk_id={}", *disk);
  const HttpServerAddress server{options.server, options.token, options.tls.certificates};
  nlohmann::json body;
  try {
    body = api_call(server, {.target = target});
  } catch (const ServerRefused& refused) {
    if (refused.code() == "vm_not_found") refuse_unknown_point(server, options.vm_name);
    throw;
  }
  std::vector<SourcePoint> points;
  for (const auto& found : body.at("points")) {
    const auto& uris = found.at("uris");
    if (uris.empty()) throw std::runtime_error("the server has no NBD address for its points");
    points.push_back({found.at("backup_id"), found.at("export_name"), found.at("disk_id"),
                      found.at("size_bytes"), nbd::parse_uri(uris.front().get<std::string>())});
  }
  return points;
}

/// What of a range differs from the older point, from the server's own account of it.
class Differences {
 public:
  Differences(nbd::Client& client, std::string context) : client_(client), context_(context) {
    for (const nbd::OfferedContext& offered : client.contexts()) {
      if (offered.name == context_) id_ = offered.id;
    }
  }
  bool known() const { return id_.has_value(); }

  io::Task<std::vector<engine::CopyRange>> of(uint64_t offset, uint64_t length, uint64_t& until) {
    std::vector<engine::CopyRange> ranges;
    const std::vector<nbd::StatusPayload> payloads = co_await client_.block_status(offset, length);
    for (const nbd::StatusPayload& payload : payloads) {
      if (payload.context_id != *id_) continue;
      uint64_t at = offset;
      for (const nbd::StatusRun& run : payload.runs) {
        const uint64_t part = std::min(run.length, offset + length - at);
        if ((run.flags & 1) != 0 && part > 0) ranges.push_back({at, part, false});
        at += part;
      }
      until = at;
    }
    if (until <= offset) throw std::runtime_error("the server says nothing about what differs");
    co_return ranges;
  }

 private:
  nbd::Client& client_;
  std::string context_;
  std::optional<uint32_t> id_;
};

struct Restore {
  const RestoreOptions& options;
  SourcePoint point;
  std::string since_id;  // "": everything
  std::string target;
};

io::Task<engine::CopyProgress> copy(io::Runtime runtime, const Restore& restore,
                                    const std::vector<std::unique_ptr<nbd::Client>>& clients,
                                    RestoreTarget& target, CopyReport& report) {
  engine::CopyOptions copying;
  for (const auto& client : clients) copying.sources.push_back(client.get());
  copying.targets = target.devices();
  copying.start = target.resumed_at();
  copying.request_bytes = kRequestBytes;
  copying.requests = restore.options.requests;
  copying.target_is_zero = target.is_zero();
  std::optional<Differences> differences;
  if (!restore.since_id.empty()) {
    differences.emplace(*clients.front(), "qemu:dirty-bitmap:since-" + restore.since_id);
    if (!differences->known()) {
      throw std::runtime_error(fmt::format("{} does not stand on backup {}: leave --since away",
                                           restore.point.export_name, restore.since_id));
    }
    copying.plan = [&differences](uint64_t offset, uint64_t length, uint64_t& until) {
      return differences->of(offset, length, until);
    };
  }
  io::SteadyTime kept = runtime.clock.now();
  copying.on_progress = [&](const engine::CopyProgress& progress) -> io::Task<void> {
    report.progress(progress);
    if (runtime.clock.now() - kept < kKeepInterval) co_return;
    kept = runtime.clock.now();
    co_await target.keep(progress.done_until);
  };
  co_return co_await engine::copy_disk(runtime, std::move(copying));
}

io::Task<void> restore_disk(io::Ring& ring, io::Runtime runtime, Restore restore) {
  std::vector<std::string> contexts = {"base:allocation"};
  if (!restore.since_id.empty()) {
    contexts.push_back("qemu:dirty-bitmap:since-" + restore.since_id);
  }
  const auto clients = co_await connect_all(
      ring, runtime, restore.point.uri, restore.options.connections, restore.options.tls, contexts);
  CopyReport report(restore.options.json, runtime.clock);
  std::unique_ptr<RestoreTarget> target;
  const auto work = [&]() -> io::Task<void> {
    TargetRequest request{.target = restore.target,
                          .source_name = restore.point.export_name,
                          .size = clients.front()->size(),
                          .force = restore.options.force,
                          .resume = restore.options.resume,
                          .in_place = !restore.since_id.empty(),
                          .connections = restore.options.connections,
                          .tls = restore.options.tls};
    target = co_await RestoreTarget::open(ring, runtime, std::move(request));
    report.start(restore.point.export_name, restore.target, clients.front()->size(),
                 target->resumed_at());
    const engine::CopyProgress progress = co_await copy(runtime, restore, clients, *target, report);
    co_await target->finish();
    report.done(progress, restore.target);
  };
  io::Outcome<> done = co_await io::attempt(work);
  if (target) co_await target->close();
  for (const auto& client : clients) co_await client->close();
  done.take();
}

std::string absolute_target(const std::string& target) {
  return nbd::is_uri(target) ? target : absolute_path(target);
}

void restore(const RestoreOptions& options) {
  const bool all = !options.all_disks.empty();
  std::optional<uint32_t> disk;
  if (!all) disk = options.disk_id;
  std::vector<SourcePoint> points = ask_for_points(options, options.point, disk);
  if (all) std::filesystem::create_directories(options.all_disks);
  io::RingRuntime here;
  for (SourcePoint& point : points) {
    Restore one{.options = options, .point = point, .since_id = "", .target = options.target};
    if (all) one.target = fmt::format("{}/disk-{}.raw", options.all_disks, point.disk_id);
    one.target = absolute_target(one.target);
    if (!options.since.empty()) {
      one.since_id = ask_for_points(options, options.since, point.disk_id).front().backup_id;
    }
    here.ring().run(restore_disk(here.ring(), here.runtime(), std::move(one)));
  }
}

}  // namespace

int run_restore(const RestoreOptions& options) {
  io::configure_log(io::LogFormat::text, io::LogLevel::error);
  const bool json = options.json;
  // What is durable is known at the target: there is nothing to tidy up.
  const Failure interrupted = failure_of(
      CommandFailed(kInterrupted, options.since.empty()
                                      ? "interrupted; the same command with --resume continues it"
                                      : "interrupted; the same command sends again what differs"));
  when_interrupted({.last_words = [json, interrupted] { report_error(json, interrupted); }});
  Failure failure;
  try {
    restore(options);
    return kOk;
  } catch (const UsageError&) {
    throw;
  } catch (const TargetRefused& refused) {
    failure = failure_of(CommandFailed(kBusy, refused.what()));
  } catch (const std::exception& thrown) {
    failure = failure_of(thrown);
  }
  report_error(options.json, failure);
  return failure.exit_status;
}

}  // namespace app
