#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "app/commands.h"
#include "app/copy_report.h"
#include "app/exit_status.h"
#include "app/nbd_connection.h"
#include "app/pull/hub.h"
#include "app/pull/libvirt.h"
#include "app/pull/source.h"
#include "io/failure.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/ring_thread.h"
#include "io/signals.h"

/// `varve pull`: from NBD exports, files or devices into a backup of a running `varve serve`.
namespace app {
namespace {

/// All requests of one disk share it; with the program it stays below 96 MiB.
constexpr uint64_t kBufferBytes = 48 << 20;
constexpr uint64_t kSectorBytes = 512;
constexpr std::string_view kLibvirtTracker = "libvirt/";
constexpr std::chrono::seconds kTidyingPatience(20);
/// How much may wait for the server's flush before it is trimmed at the source.
constexpr uint64_t kTrimBytes = 256 << 20;
constexpr size_t kTrimRanges = 4096;

using Sources = std::vector<std::unique_ptr<PullSource>>;

/// Change ids have the form tracker/checkpoint; a checkpoint without a tracker is this program's.
std::string change_id_of(const std::string& checkpoint) {
  return checkpoint.find('/') == std::string::npos ? "pull/" + checkpoint : checkpoint;
}

/// The backup under way. Whatever ends the pull before it is published cancels it: at the server
/// nothing is left, and the next pull may begin.
class BackupUnderWay {
 public:
  explicit BackupUnderWay(Hub& hub) : hub_(hub) {}

  void begin(const std::string& id) {
    const std::lock_guard lock(mutex_);
    id_ = id;
  }
  void published() { begin(""); }
  /// Never throws: a server that is not there any more ends the backup by itself.
  void cancel(const std::string& reason) noexcept {
    const std::lock_guard lock(mutex_);
    if (id_.empty()) return;
    try {
      hub_.cancel(id_, reason);
    } catch (const std::exception&) {
    }
    id_.clear();
  }

  /// On any thread: the backup is cancelled, and whoever writes to it fails.
  void interrupt(int signal) noexcept {
    interrupted_by_ = signal;
    cancel("the pull was interrupted");
  }
  int interrupted_by() const { return interrupted_by_; }
  void require_uninterrupted() const {
    if (interrupted_by_ != 0) throw std::runtime_error("interrupted");
  }

 private:
  Hub& hub_;
  std::mutex mutex_;
  std::string id_;  // guarded by mutex_; "": none
  std::atomic<int> interrupted_by_ = 0;
};

/// Ranges that the server has taken, given back at the source once a flush has made them durable.
class TrimQueue {
 public:
  TrimQueue(PullSource& source, io::BlockDevice& target) : source_(source), target_(target) {}

  void note(const engine::CopyRange& range) {
    bytes_ += range.length;
    if (!ranges_.empty() && ranges_.back().offset + ranges_.back().length == range.offset) {
      ranges_.back().length += range.length;
    } else {
      ranges_.push_back(range);
    }
  }
  bool due() const { return bytes_ >= kTrimBytes || ranges_.size() >= kTrimRanges; }

  io::Task<void> trim() {
    bytes_ = 0;
    const std::vector<engine::CopyRange> durable = std::exchange(ranges_, {});
    if (durable.empty()) co_return;
    co_await target_.flush();
    for (const engine::CopyRange& range : durable)
      co_await source_.trim(range.offset, range.length);
  }

 private:
  PullSource& source_;
  io::BlockDevice& target_;
  std::vector<engine::CopyRange> ranges_;
  uint64_t bytes_ = 0;
};

class Pull {
 public:
  Pull(const PullOptions& options, Hub& hub, BackupUnderWay& under_way)
      : options_(options),
        hub_(hub),
        under_way_(under_way),
        here_({.buffer_budget_bytes = kBufferBytes}) {}

  void run() {
    const std::unique_ptr<LibvirtBackup> domain = begin_libvirt();
    std::vector<PullDisk> disks = options_.disks;
    if (domain) disks = disks_of(*domain);
    Sources sources;
    const Closing closing{sources, ring()};
    for (const PullDisk& disk : disks) {
      sources.push_back(ring().run(PullSource::open(ring(), here_.runtime(), disk, options_)));
      if (options_.trim_source && !sources.back()->can_trim()) {
        throw std::runtime_error(fmt::format("--trim-source: {} cannot be trimmed", disk.source));
      }
    }
    back_up(sources, disks, domain.get());
    if (domain) domain->publish();
  }

 private:
  /// Sources are closed on their ring, whatever has happened.
  struct Closing {
    ~Closing() {
      for (const auto& source : sources) ring.run(source->close());
    }
    Sources& sources;
    io::Ring& ring;
  };

  io::Ring& ring() { return here_.ring(); }

  /// Null unless the disks are a libvirt domain's.
  std::unique_ptr<LibvirtBackup> begin_libvirt() {
    if (options_.libvirt_domain.empty()) return nullptr;
    LibvirtRequest request{.domain = options_.libvirt_domain,
                           .connect = options_.libvirt_connect,
                           .since = "",
                           .freeze = options_.libvirt_freeze};
    if (!options_.full) {
      const std::string newest = hub_.newest_change_id(options_.vm_name, options_.repository_id);
      if (newest.starts_with(kLibvirtTracker))
        request.since = newest.substr(kLibvirtTracker.size());
    }
    under_way_.require_uninterrupted();
    return LibvirtBackup::begin(
        request, [this](const std::string& text) { report_warning(options_.json, text); });
  }

  static std::vector<PullDisk> disks_of(const LibvirtBackup& domain) {
    std::vector<PullDisk> disks;
    for (const LibvirtDisk& disk : domain.disks()) {
      disks.push_back({.label = disk.target, .source = disk.uri, .bitmap = disk.bitmap});
    }
    return disks;
  }

  void register_disks(const Sources& sources, std::vector<PullDisk>& disks, bool is_libvirt) {
    std::vector<HubDisk> wanted;
    for (size_t at = 0; at < sources.size(); ++at) {
      const uint64_t bytes = sources[at]->size();
      HubDisk disk{.label = disks[at].label,
                   .bytes = (bytes + kSectorBytes - 1) / kSectorBytes * kSectorBytes};
      if (!is_libvirt) disk.index = disks[at].index;
      wanted.push_back(std::move(disk));
    }
    const std::vector<uint32_t> indexes = hub_.register_disks(options_.vm_name, wanted, is_libvirt);
    for (size_t at = 0; at < disks.size(); ++at) disks[at].index = indexes[at];
  }

  void back_up(const Sources& sources, std::vector<PullDisk>& disks, const LibvirtBackup* domain) {
    register_disks(sources, disks, domain != nullptr);
    std::string base, checkpoint = options_.checkpoint;
    if (!options_.since.empty() && !options_.full) base = change_id_of(options_.since);
    if (domain) {
      if (domain->incremental()) base = std::string(kLibvirtTracker) + domain->since();
      if (!domain->checkpoint().empty())
        checkpoint = std::string(kLibvirtTracker) + domain->checkpoint();
    }
    under_way_.require_uninterrupted();
    const HubBackup backup = hub_.start(options_, base);
    under_way_.begin(backup.id);
    under_way_.require_uninterrupted();  // before there was an id to cancel
    const std::string change_id = change_id_of(checkpoint.empty() ? backup.id : checkpoint);
    for (size_t at = 0; at < disks.size(); ++at) {
      const auto to =
          std::find_if(backup.disks.begin(), backup.disks.end(),
                       [&](const HubBackup::Disk& disk) { return disk.index == disks[at].index; });
      if (to == backup.disks.end()) throw std::runtime_error("the server has left a disk out");
      ring().run(pull_disk(*sources[at], disks[at], *to));
      hub_.complete(backup.id, to->index, change_id);
    }
    under_way_.published();
    report_published(backup, change_id, !base.empty());
  }

  io::Task<void> pull_disk(PullSource& source, const PullDisk& disk, HubBackup::Disk to) {
    const auto targets = co_await connect_all(ring(), here_.runtime(), nbd::parse_uri(to.uri),
                                              options_.connections, options_.tls, {});
    CopyReport report(options_.json, here_.runtime().clock);
    report.start(disk.label.empty() ? disk.source : disk.label, fmt::format("disk {}", disk.index),
                 source.size(), 0);
    io::Outcome<> done = co_await io::attempt([&]() -> io::Task<void> {
      const engine::CopyProgress progress = co_await copy(source, targets, to.is_full, report);
      report.done(progress, fmt::format("disk {}", disk.index));
    });
    for (const auto& target : targets) co_await target->close();
    done.take();
  }

  io::Task<engine::CopyProgress> copy(PullSource& source,
                                      const std::vector<std::unique_ptr<nbd::Client>>& targets,
                                      bool is_full, CopyReport& report) {
    engine::CopyOptions copying;
    copying.sources = source.devices();
    // A source of one connection does not keep the target's others from being used.
    while (copying.sources.size() < targets.size()) {
      copying.sources.push_back(copying.sources.front());
    }
    for (const auto& target : targets) copying.targets.push_back(target.get());
    copying.request_bytes = options_.request_bytes;
    copying.requests = options_.requests;
    copying.target_is_zero = is_full;
    copying.find_zeroes = true;
    copying.bytes_per_second = options_.bytes_per_second;
    // A list without --since says what holds data; else it says nothing about a disk that is new.
    const bool is_list_of_data = options_.since.empty() && !options_.full;
    const bool everything = is_full && !is_list_of_data;
    copying.plan = [&source, everything](uint64_t offset, uint64_t length, uint64_t& until) {
      return source.plan(offset, length, until, everything);
    };
    copying.on_failure = [&] {
      source.abort();
      for (const auto& target : targets) target->abort();
    };
    TrimQueue trims(source, *targets.front());
    if (options_.trim_source) {
      copying.on_accepted = [&trims](const engine::CopyRange& range) { trims.note(range); };
    }
    copying.on_progress = [&](const engine::CopyProgress& progress) -> io::Task<void> {
      report.progress(progress);
      if (trims.due()) co_await trims.trim();
    };
    const engine::CopyProgress progress =
        co_await engine::copy_disk(here_.runtime(), std::move(copying));
    co_await trims.trim();
    co_return progress;
  }

  void report_published(const HubBackup& backup, const std::string& change_id, bool incremental) {
    const char* const type = incremental ? "incremental" : "full";
    if (options_.json) {
      print_json_line({{"event", "published"},
                       {"backup_id", backup.id},
                       {"backup_type", type},
                       {"change_id", change_id}});
    } else {
      fmt::print(stderr, "published {}, {} of {}\n", backup.id, type, options_.vm_name);
    }
  }

  const PullOptions& options_;
  Hub& hub_;
  BackupUnderWay& under_way_;
  io::RingRuntime here_;
};

/// A signal ends the backup at the server, and with it the pull, which then tidies up at its
/// source. What hangs there is left behind after a while.
void cancel_on_signal(BackupUnderWay& under_way) {
  std::thread([&under_way] {
    const int signal = io::wait_for_termination();
    under_way.interrupt(signal);
    std::this_thread::sleep_for(kTidyingPatience);
    ::_exit(kInterrupted + signal);
  }).detach();
}

}  // namespace

int run_pull(const PullOptions& options) {
  io::configure_log(io::LogFormat::text, io::LogLevel::error);
  io::block_termination_signals();
  static Hub hub({options.server, options.token});
  static BackupUnderWay under_way(hub);  // both: the signal's thread outlives this frame
  cancel_on_signal(under_way);
  int status = kFailed;
  std::string text;
  try {
    Pull(options, hub, under_way).run();
    return 0;
  } catch (const UsageError&) {
    under_way.cancel("the pull failed");
    throw;
  } catch (const HubRefused& refused) {
    text = refused.what();
    if (refused.status() == 404) status = kNotFound;
    if (refused.status() == 400 || refused.status() == 409) status = kRefused;
  } catch (const std::exception& failure) {
    text = failure.what();
  }
  under_way.cancel(text);
  if (const int signal = under_way.interrupted_by()) {
    text = "interrupted; the backup is cancelled";
    status = kInterrupted + signal;
  }
  report_error(options.json, text, status);
  return status;
}

}  // namespace app
