// SPDX-License-Identifier: Apache-2.0
#include "app/pull/pull.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "app/copy_report.h"
#include "app/nbd_connection.h"
#include "app/pull/arrived.h"
#include "app/pull/kept_backup.h"
#include "app/pull/libvirt.h"
#include "app/pull/source.h"
#include "app/pull/tracking.h"
#include "app/pull/trim_queue.h"
#include "io/counted.h"
#include "io/http_url.h"
#include "io/outcome.h"
#include "io/ring_thread.h"

namespace app {
namespace {

/// All requests of one disk share it; with the program it stays below 96 MiB.
constexpr uint64_t kBufferBytes = 48 << 20;
constexpr uint64_t kSectorBytes = 512;
/// After as long without progress the server is asked whether it still waits.
constexpr io::Duration kStandstill = std::chrono::seconds(10);
constexpr std::string_view kLibvirtTracker = "libvirt/";

/// Between two questions to a server that does not answer.
constexpr std::chrono::seconds kServerPause(1);

using Sources = std::vector<std::unique_ptr<PullSource>>;

/// Change ids have the form tracker/checkpoint; a checkpoint without a tracker is this program's.
std::string change_id_of(const std::string& checkpoint) {
  return checkpoint.find('/') == std::string::npos ? "pull/" + checkpoint : checkpoint;
}

struct Published {
  std::string backup_id, change_id;
  bool is_incremental = false;
  bool is_in_chain = false;  // a full of which disks stand on their newest point
};

class Pull {
 public:
  Pull(const PullOptions& options, Hub& hub, BackupUnderWay& under_way)
      : options_(options),
        hub_(hub),
        under_way_(under_way),
        here_({.buffer_budget_bytes = kBufferBytes}) {}

  std::string run() {
    if (!options_.resume.empty()) {
      kept_.emplace(hub_, options_.resume);
      kept_->require_of(hub_, options_.vm_name);
    }
    const std::unique_ptr<LibvirtBackup> domain = begin_libvirt();
    std::vector<PullDisk> disks = options_.disks;
    if (domain) disks = disks_of(*domain);
    Sources sources;
    const Closing closing{sources, ring()};
    for (const PullDisk& disk : disks) {
      sources.push_back(ring().run(PullSource::open(ring(), here_.runtime(), disk, options_)));
    }
    const bool any = std::ranges::any_of(sources, [](const auto& one) { return one->can_trim(); });
    if (options_.trim_source && !any) {
      throw PullRefused("--trim-source: no source is an NBD export that takes TRIM");
    }
    const Published published = back_up(sources, disks, domain.get());
    if (domain) domain->publish();
    report_published(published);
    return published.backup_id;
  }

 private:
  /// A disk that was copied.
  struct Checked {
    HubBackup::Disk disk;
    std::unique_ptr<Tracking> tracking;
  };

  /// Sources are closed on their ring, whatever has happened.
  struct Closing {
    ~Closing() {
      for (const auto& source : sources) {
        if (source) ring.run(source->close());
      }
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
                           .checkpoints = {},
                           .full = options_.full,
                           .freeze = options_.libvirt_freeze};
    for (const std::string& id : hub_.change_ids(options_.vm_name, options_.repository_id)) {
      const bool is_libvirt = id.starts_with(kLibvirtTracker);
      request.checkpoints.push_back(is_libvirt ? id.substr(kLibvirtTracker.size()) : "");
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

  static uint64_t disk_bytes(const PullSource& source) {
    return (source.size() + kSectorBytes - 1) / kSectorBytes * kSectorBytes;
  }

  void register_disks(const Sources& sources, std::vector<PullDisk>& disks, bool is_libvirt) {
    std::vector<HubDisk> wanted;
    for (size_t at = 0; at < sources.size(); ++at) {
      HubDisk disk{.label = disks[at].label, .bytes = disk_bytes(*sources[at])};
      if (kept_) kept_->require_size(disks[at].index, disk.bytes);
      if (!is_libvirt) disk.index = disks[at].index;
      wanted.push_back(std::move(disk));
    }
    const std::vector<uint32_t> indexes = hub_.register_disks(options_.vm_name, wanted, is_libvirt);
    for (size_t at = 0; at < disks.size(); ++at) disks[at].index = indexes[at];
  }

  Published back_up(Sources& sources, std::vector<PullDisk>& disks, const LibvirtBackup* domain) {
    hub_.require_repository(options_.repository_id);
    const bool is_listed =
        std::ranges::any_of(disks, [](const PullDisk& disk) { return !disk.changed.empty(); });
    if (kept_ && is_listed && options_.since.empty()) kept_->require_full();
    register_disks(sources, disks, domain != nullptr);
    std::string checkpoint = options_.checkpoint;
    base_ = options_.base;
    if (!options_.since.empty() && !options_.full) base_ = change_id_of(options_.since);
    if (domain) {
      if (domain->incremental()) base_ = std::string(kLibvirtTracker) + domain->since();
      if (!domain->checkpoint().empty())
        checkpoint = std::string(kLibvirtTracker) + domain->checkpoint();
    }
    under_way_.require_uninterrupted();
    // What libvirt cannot tell is sent whole, and stored where it differs.
    const bool is_fallback = domain && !options_.full && base_.empty();
    into_chain_ = options_.into_chain || options_.check_tracking || is_fallback;
    // The moment of a domain ends with this process; another one has nothing to go on with.
    keeps_ = options_.keep_partial && !domain && !options_.trim_source;
    begin_at(options_.resume.empty() ? hub_.start(options_, base_, into_chain_)
                                     : hub_.resume(options_.resume, base_),
             disks.size());
    require_parents(sources, disks);
    asks_what_arrived_ = !options_.resume.empty();
    const std::string own_checkpoint = checkpoint;
    std::string change_id;
    bool published = false;
    for (size_t at = 0; at < disks.size();) {
      try {
        change_id = change_id_of(own_checkpoint.empty() ? backup_.id : own_checkpoint);
        const HubBackup::Disk to = disk_of_backup(disks[at].index);
        pull_one(*sources[at], disks[at], to);
        ring().run(require_unchanged(*sources[at]));
        if (domain) domain->require_unchanged();
        target_failed_ = true;  // whatever fails from here on is the server's
        published = hub_.complete(backup_.id, to.index, change_id, options_.server_patience,
                                  [this] { under_way_.require_uninterrupted(); });
        ++at;
      } catch (const UsageError&) {
        throw;
      } catch (const std::exception& failure) {
        const std::string before = backup_.id;
        const bool is_refusal = dynamic_cast<const ServerRefused*>(&failure) != nullptr;
        if (!goes_on(failure.what(), is_refusal)) throw;
        reopen(sources[at], disks[at], std::current_exception());
        std::erase_if(checked_,
                      [&](const Checked& one) { return one.disk.index == disks[at].index; });
        if (backup_.id != before) {
          at = 0;  // those that were complete are so again, unsent
          checked_.clear();
        }
      }
    }
    if (!published) throw std::runtime_error("the server has not published the backup");
    under_way_.published();
    for (const Checked& one : checked_) report_missed(one, backup_.id);
    const bool is_incremental = !base_.empty() && !into_chain_;
    return {backup_.id, change_id, is_incremental, !is_incremental && stands_on_another(backup_)};
  }

  void begin_at(HubBackup backup, size_t disks) {
    backup_ = std::move(backup);
    under_way_.begin(backup_.id, keeps_);
    under_way_.require_uninterrupted();  // before there was an id to cancel
    if (backup_.disks.size() != disks) {
      throw std::runtime_error("the VM was registered with other disks meanwhile");
    }
  }

  /// What differs from something is not a disk by itself.
  void require_parents(const Sources& sources, const std::vector<PullDisk>& disks) {
    for (size_t at = 0; at < sources.size(); ++at) {
      const HubBackup::Disk to = disk_of_backup(disks[at].index);
      if (base_.empty() || !to.is_full || !sources[at]->needs_parent()) continue;
      keep_nothing();
      throw PullRefused(
          fmt::format("disk {} has no point that {} could stand on: {} has points without it. Make "
                      "a full of the disk first, by `varve pull` of all disks or by `varve adopt` "
                      "of whole chains without --parent",
                      to.index, disks[at].source, options_.vm_name));
    }
  }

  /// Whatever fails from here on, what has arrived is nothing to go on with.
  void keep_nothing() {
    keeps_ = false;
    under_way_.begin(backup_.id);
  }

  /// Zeroes may have arrived in the place of what was cut off.
  io::Task<void> require_unchanged(PullSource& source) {
    io::Outcome<> looked = co_await io::attempt([&] { return source.require_unchanged(); });
    if (looked.failed()) keep_nothing();
    looked.take();
  }

  HubBackup::Disk disk_of_backup(uint32_t index) const {
    const auto found = std::ranges::find(backup_.disks, index, &HubBackup::Disk::index);
    if (found == backup_.disks.end()) throw std::runtime_error("the server has left a disk out");
    return *found;
  }

  /// After a failure: whether the server still has, or can resume, what was sent. A source that has
  /// failed may come back as another moment, so it ends the pull; and so does a server that takes
  /// nothing more for --server-patience, or never has.
  bool goes_on(const std::string& failure, bool is_refusal) {
    if (!target_failed_ || !options_.keep_partial || options_.trim_source) return false;
    const bool has_moved = std::exchange(moved_, 0) > 0;
    if (has_moved) failing_since_ = now();
    while (failing_since_ && now() - *failing_since_ <= options_.server_patience) {
      under_way_.require_uninterrupted();
      try {
        const Hub::State state = hub_.state_of(backup_.id);
        if (state.is_active && is_refusal) return false;
        if (!state.is_active && !take_up_another(state)) return false;
        asks_what_arrived_ = true;
        if (has_moved) report_warning(options_.json, fmt::format("{}; going on", failure));
        if (!has_moved) std::this_thread::sleep_for(kServerPause);
        return true;
      } catch (const ServerRefused& refused) {
        if (refused.status() < 500) return false;
      } catch (const std::exception&) {
        // It does not answer; perhaps it is being restarted.
      }
      std::this_thread::sleep_for(kServerPause);
    }
    return false;
  }

  /// The backup that goes on with the one that ended, perhaps begun by a request whose answer was
  /// lost.
  bool take_up_another(const Hub::State& ended) {
    if (ended.is_resumable) {
      begin_at(hub_.resume(backup_.id, base_), backup_.disks.size());
      return true;
    }
    std::optional<HubBackup> successor = hub_.successor_of(backup_.id, options_.vm_name);
    if (!successor) return false;
    begin_at(std::move(*successor), backup_.disks.size());
    return true;
  }

  io::SteadyTime now() { return here_.runtime().clock.now(); }

  /// The failure has ended what was open. A source that cannot be opened again was its cause.
  void reopen(std::unique_ptr<PullSource>& source, const PullDisk& disk,
              std::exception_ptr failure) {
    const uint64_t before = source->size();
    ring().run(source->close());
    source.reset();
    try {
      source = ring().run(PullSource::open(ring(), here_.runtime(), disk, options_));
    } catch (const std::exception&) {
      std::rethrow_exception(failure);
    }
    if (source->size() == before) return;
    keep_nothing();
    throw std::runtime_error(
        fmt::format("disk {}: {} had {} when the pull began and has {} now, so it is not what it "
                    "was, and the pull cannot go on with it",
                    disk.index, io::without_password(disk.source), io::counted(before, "byte"),
                    io::counted(source->size(), "byte")));
  }

  /// What fails a copy is often how the server ended the backup: that is the cause to tell.
  void pull_one(PullSource& source, const PullDisk& disk, const HubBackup::Disk& to) {
    try {
      ring().run(pull_disk(source, disk, to));
    } catch (const UsageError&) {
      throw;
    } catch (const std::exception& failure) {
      std::string text = fmt::format("disk {}: {}", disk.index, failure.what());
      try {
        const std::string end = hub_.end_of(backup_.id);
        if (!end.empty()) text += fmt::format("; the server's backup has {}", end);
      } catch (const std::exception&) {
      }
      throw std::runtime_error(text);
    }
  }

  io::Task<void> pull_disk(PullSource& source, const PullDisk& disk, HubBackup::Disk to) {
    std::vector<std::string> contexts;
    target_failed_ = true;
    if (asks_what_arrived_) contexts = {"base:allocation", Arrived::kContext};
    const auto targets = co_await connect_all(ring(), here_.runtime(), nbd::parse_uri(to.uri),
                                              options_.connections, options_.tls, contexts);
    target_failed_ = false;
    if (targets.front()->size() != disk_bytes(source)) {
      throw std::runtime_error(
          fmt::format("{} has {}, and the server's disk {}: it was registered anew meanwhile",
                      io::without_password(disk.source), io::counted(source.size(), "byte"),
                      io::counted(targets.front()->size(), "byte")));
    }
    CopyReport report(options_.json, here_.runtime().clock);
    report.start(disk.label.empty() ? disk.source : disk.label, fmt::format("disk {}", disk.index),
                 source.size(), 0);
    // Only a list without a base says what holds data; else it tells nothing of a disk that is new.
    const bool is_list_of_data =
        !disk.changed.empty() && base_.empty() && !options_.full && !options_.check_tracking;
    const bool everything =
        (to.is_full || base_.empty() || into_chain_ || backup_.is_full) && !is_list_of_data;
    Checked checked{.disk = to,
                    .tracking = std::make_unique<Tracking>(mode_of(to), options_.sampled_share,
                                                           source, *targets.front())};
    io::Outcome<> done = co_await io::attempt([&]() -> io::Task<void> {
      const engine::CopyProgress progress =
          co_await copy(source, *checked.tracking, targets, everything, report);
      report.done(progress, fmt::format("disk {}", disk.index));
    });
    checked_.push_back(std::move(checked));
    for (const auto& target : targets) co_await target->close();
    done.take();
  }

  io::Task<engine::CopyProgress> copy(PullSource& source, Tracking& tracking,
                                      const std::vector<std::unique_ptr<nbd::Client>>& targets,
                                      bool everything, CopyReport& report) {
    engine::CopyOptions copying;
    copying.sources = source.devices();
    // A source of one connection does not keep the target's others from being used.
    while (copying.sources.size() < targets.size()) {
      copying.sources.push_back(copying.sources.front());
    }
    for (const auto& target : targets) copying.targets.push_back(target.get());
    copying.request_bytes = options_.request_bytes;
    copying.requests = options_.requests;
    copying.find_zeroes = true;
    copying.bytes_per_second = options_.bytes_per_second;
    std::optional<Arrived> arrived;
    if (asks_what_arrived_) arrived.emplace(*targets.front());
    copying.plan = [&](uint64_t offset, uint64_t length, uint64_t& until) {
      return planned(tracking, arrived ? &*arrived : nullptr, offset, length, until, everything);
    };
    const uint64_t moved_before = moved_;
    copying.on_failure = [&](bool of_target) {
      target_failed_ = target_failed_ || of_target;
      source.abort();
      for (const auto& target : targets) target->abort();
    };
    TrimQueue trims(source, *targets.front());
    if (options_.trim_source && source.can_trim()) {
      copying.on_accepted = [&trims](const engine::CopyRange& range) { trims.note(range); };
    }
    io::SteadyTime moved = here_.runtime().clock.now();
    uint64_t done_before = 0;
    copying.on_progress = [&](const engine::CopyProgress& progress) -> io::Task<void> {
      report.progress(progress);
      under_way_.require_uninterrupted();
      co_await require_unchanged(source);
      const io::SteadyTime now = here_.runtime().clock.now();
      const uint64_t done = progress.data + progress.zeroes + progress.skipped;
      moved_ = moved_before + progress.data + progress.zeroes;
      if (done != std::exchange(done_before, done)) moved = now;
      if (now - moved > kStandstill) {  // the server may have given the backup up
        moved = now;
        const std::string end = hub_.end_of(backup_.id);
        if (!end.empty()) throw std::runtime_error("nothing comes from the source");
      }
      if (trims.due()) co_await trims.trim();
    };
    const engine::CopyProgress progress =
        co_await engine::copy_disk(here_.runtime(), std::move(copying));
    co_await trims.trim();
    moved_ = moved_before + progress.data + progress.zeroes;
    co_return progress;
  }

  io::Task<std::vector<engine::CopyRange>> planned(Tracking& tracking, Arrived* arrived,
                                                   uint64_t offset, uint64_t length,
                                                   uint64_t& until, bool everything) {
    std::vector<engine::CopyRange> ranges =
        co_await tracking.plan(offset, length, until, everything);
    if (arrived == nullptr) co_return ranges;
    const auto ask = [&] { return arrived->without(std::move(ranges)); };
    io::Outcome<std::vector<engine::CopyRange>> missing = co_await io::attempt(ask);
    target_failed_ = target_failed_ || missing.failed();
    co_return missing.take();
  }

  TrackingMode mode_of(const HubBackup::Disk& disk) const {
    if (disk.parent_backup_id.empty()) return TrackingMode::trusted;
    if (options_.check_tracking) return TrackingMode::checked;
    return options_.sampled_share > 0 ? TrackingMode::sampled : TrackingMode::trusted;
  }

  static bool stands_on_another(const HubBackup& backup) {
    return std::ranges::any_of(backup.disks, [](const auto& disk) { return !disk.is_full; });
  }

  /// What change tracking has missed; the point has it right.
  void report_missed(const Checked& one, const std::string& backup_id) {
    const HubBackup::Disk& disk = one.disk;
    const TrackingMode mode = mode_of(disk);
    if (mode == TrackingMode::trusted) return;
    try {
      if (mode == TrackingMode::checked) {
        one.tracking->note_changed(hub_.changes(backup_id, disk.parent_backup_id, disk.index));
      }
    } catch (const std::exception& failure) {  // the point is published, and its source is told so
      report_warning(options_.json, fmt::format("disk {}: the tracking could not be checked: {}",
                                                disk.index, failure.what()));
      return;
    }
    report_untracked(options_.json, disk.index, *one.tracking);
  }

  void report_published(const Published& published) {
    const char* const type = published.is_incremental ? "incremental" : "full";
    if (options_.json) {
      print_json_line({{"event", "published"},
                       {"backup_id", published.backup_id},
                       {"backup_type", type},
                       {"into_chain", published.is_in_chain},
                       {"change_id", published.change_id}});
    } else {
      fmt::print(stderr, "published {}, {} of {}{}\n", published.backup_id, type, options_.vm_name,
                 published.is_in_chain ? ", into the chain" : "");
    }
  }

  const PullOptions& options_;
  Hub& hub_;
  BackupUnderWay& under_way_;
  HubBackup backup_;                // under way
  std::optional<KeptBackup> kept_;  // that is resumed
  bool keeps_ = false;              // a failure leaves what has arrived at the server
  bool asks_what_arrived_ = false;
  bool target_failed_ = false;                   // and not the source
  std::optional<io::SteadyTime> failing_since_;  // when something last came to the server
  uint64_t moved_ = 0;                           // bytes since the last failure
  std::string base_;                             // of the backup under way; "": a full
  bool into_chain_ = false;                      // of a full
  std::vector<Checked> checked_;
  io::RingRuntime here_;
};

}  // namespace

std::string pull(const PullOptions& options, Hub& hub, BackupUnderWay& under_way) {
  return Pull(options, hub, under_way).run();
}

}  // namespace app
