// SPDX-License-Identifier: Apache-2.0
#include "app/pull/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "app/copy_report.h"
#include "app/nbd_connection.h"
#include "app/pull/libvirt.h"
#include "app/pull/repair_report.h"
#include "app/pull/source.h"
#include "app/pull/wanted.h"
#include "io/outcome.h"
#include "io/ring_thread.h"
#include "io/task_scope.h"

namespace app {
namespace {

constexpr size_t kClustersAtOnce = 16;

/// A disk with damage: its source, and what was found there.
struct Patient {
  const WantedOfDisk* wanted = nullptr;
  std::unique_ptr<PullSource> source{};
  RepairedDisk found{};
};

class Repair {
 public:
  Repair(const PullOptions& options, Hub& hub, BackupUnderWay& under_way)
      : options_(options), hub_(hub), under_way_(under_way) {}

  void run() {
    wanted_ = read_wanted(hub_, options_.vm_name, options_.repository_id);
    if (wanted_.bytes() == 0) return end_without_ranges();
    const std::unique_ptr<LibvirtBackup> domain = begin_libvirt();
    std::vector<Patient> patients;
    const Closing closing{patients, ring()};
    admit(patients, domain ? disks_of(*domain) : options_.disks);
    for (Patient& patient : patients) examine(patient);
    const bool any =
        std::ranges::any_of(patients, [](const auto& one) { return !one.found.same.empty(); });
    if (!any) {
      for (const Patient& patient : patients) report_repaired(options_.json, patient.found);
      report_still_damaged(options_.json, wanted_.damaged_backups);
      throw std::runtime_error(fmt::format(
          "nothing can be healed: the source of VM {} does not hold any of the {} damaged bytes of "
          "the newest point as they were sent; pull with --into-chain",
          options_.vm_name, wanted_.bytes()));
    }
    const std::string backup_id = heal(patients, domain.get());
    for (const Patient& patient : patients) report_repaired(options_.json, patient.found);
    report_repair_published(options_.json, options_.vm_name, backup_id, change_id_);
    report_rest(patients);
  }

 private:
  /// Sources are closed on their ring, whatever has happened.
  struct Closing {
    ~Closing() {
      for (const Patient& patient : patients) {
        if (patient.source) ring.run(patient.source->close());
      }
    }
    std::vector<Patient>& patients;
    io::Ring& ring;
  };

  io::Ring& ring() { return here_.ring(); }

  void end_without_ranges() {
    if (!wanted_.complete) {
      throw std::runtime_error(fmt::format(
          "nothing can be healed: verifications have found more damage in the chain of VM {} than "
          "they name; verify it again, or pull with --into-chain, or with --full where tables and "
          "sidecars are damaged",
          options_.vm_name));
    }
    report_nothing_wanted(options_.json, options_.vm_name);
    report_still_damaged(options_.json, wanted_.damaged_backups);
  }

  /// Null unless the disks are a libvirt domain's.
  std::unique_ptr<LibvirtBackup> begin_libvirt() {
    if (options_.libvirt_domain.empty()) return nullptr;
    LibvirtRequest request{.domain = options_.libvirt_domain,
                           .connect = options_.libvirt_connect,
                           .checkpoints = {},
                           .full = true,
                           .freeze = false,
                           .only_read = true};
    // A pull that was killed right after it had published has left the newest one.
    constexpr std::string_view kTracker = "libvirt/";
    const std::string& change_id = wanted_.disks.front().change_id;
    if (change_id.starts_with(kTracker)) {
      request.checkpoints.push_back(change_id.substr(kTracker.size()));
    }
    under_way_.require_uninterrupted();
    return LibvirtBackup::begin(
        request, [this](const std::string& text) { report_warning(options_.json, text); });
  }

  std::vector<PullDisk> disks_of(const LibvirtBackup& domain) const {
    std::vector<PullDisk> disks;
    for (const LibvirtDisk& disk : domain.disks()) {
      for (const WantedOfDisk& known : wanted_.disks) {
        if (known.label != disk.target) continue;
        disks.push_back({.index = known.index, .label = disk.target, .source = disk.uri});
      }
    }
    return disks;
  }

  /// Only disks that lack something need a source.
  void admit(std::vector<Patient>& patients, const std::vector<PullDisk>& disks) {
    for (const PullDisk& disk : disks) {
      if (std::ranges::find(wanted_.disks, disk.index, &WantedOfDisk::index) ==
          wanted_.disks.end()) {
        throw PullRefused(fmt::format("VM {} has no disk {}", options_.vm_name, disk.index));
      }
    }
    for (const WantedOfDisk& wanted : wanted_.disks) {
      if (wanted.clusters.empty()) continue;
      const auto disk = std::ranges::find(disks, wanted.index, &PullDisk::index);
      if (disk == disks.end()) {
        throw PullRefused(
            fmt::format("disk {} of VM {} has damage, and there is no --disk {}=SOURCE",
                        wanted.index, options_.vm_name, wanted.index));
      }
      patients.push_back({.wanted = &wanted});
      patients.back().found.index = wanted.index;
      patients.back().source =
          ring().run(PullSource::open(ring(), here_.runtime(), *disk, options_));
    }
  }

  /// Calls `work(cluster, content)` for each, several at once; the content is that of the source,
  /// a whole cluster with zeroes behind the disk's end.
  template <class Work>
  io::Task<void> read_each(PullSource& source, const WantedOfDisk& disk,
                           const std::vector<WantedCluster>& clusters, Work& work) {
    size_t next = 0;
    const std::vector<io::BlockDevice*> devices = source.devices();
    const auto worker = [&]() -> io::Task<void> {
      std::vector<std::byte> content(disk.cluster_bytes);
      while (next < clusters.size()) {
        const size_t at = next++;
        const WantedCluster& cluster = clusters[at];
        under_way_.require_uninterrupted();
        co_await wait_for_turn(cluster.length);
        const uint64_t left = source.size() - std::min(source.size(), cluster.offset);
        const auto there = std::span(content).first(std::min<uint64_t>(left, content.size()));
        if (!there.empty()) co_await devices[at % devices.size()]->read(cluster.offset, there);
        std::fill(content.begin() + static_cast<ptrdiff_t>(std::min(there.size(), cluster.length)),
                  content.end(), std::byte{0});
        co_await work(cluster, std::span<const std::byte>(content));
      }
    };
    const auto workers = [&](io::TaskScope& scope) -> io::Task<void> {
      const size_t count = std::min(kClustersAtOnce, clusters.size());
      for (size_t i = 0; i < count; ++i) scope.spawn(worker());
      co_return;
    };
    co_await io::run_scoped(workers);
  }

  /// Keeps to the rate.
  io::Task<void> wait_for_turn(uint64_t bytes) {
    if (options_.bytes_per_second == 0) co_return;
    const std::chrono::duration<double> takes(static_cast<double>(bytes) /
                                              static_cast<double>(options_.bytes_per_second));
    const io::Runtime& runtime = here_.runtime();
    const io::SteadyTime now = runtime.clock.now();
    const io::SteadyTime turn = std::max(now, next_read_);
    next_read_ = turn + std::chrono::duration_cast<io::Duration>(takes);
    if (turn > now) co_await io::sleep(runtime.executor, runtime.clock, turn - now);
  }

  void examine(Patient& patient) {
    std::vector<WantedCluster> known;
    for (const WantedCluster& cluster : patient.wanted->clusters) {
      const bool is_known = cluster.known != WantedCluster::Known::nothing;
      (is_known ? known : patient.found.unknown).push_back(cluster);
    }
    auto compare = [&](const WantedCluster& cluster,
                       std::span<const std::byte> content) -> io::Task<void> {
      (cluster.is(content) ? patient.found.same : patient.found.changed).push_back(cluster);
      co_return;
    };
    try {
      ring().run(read_each(*patient.source, *patient.wanted, known, compare));
    } catch (const std::exception& failure) {
      throw std::runtime_error(fmt::format("disk {}: {}", patient.wanted->index, failure.what()));
    }
    std::ranges::sort(patient.found.same, {}, &WantedCluster::offset);
    std::ranges::sort(patient.found.changed, {}, &WantedCluster::offset);
  }

  /// The id of the published backup.
  std::string heal(std::vector<Patient>& patients, const LibvirtBackup* domain) {
    under_way_.require_uninterrupted();
    const std::string newest = wanted_.disks.front().backup_id;
    const HubBackup backup = hub_.start(options_, newest, false);
    under_way_.begin(backup.id);
    under_way_.require_uninterrupted();
    for (const HubBackup::Disk& disk : backup.disks) {
      if (!disk.is_full && disk.parent_backup_id == newest) continue;
      throw PullRefused(fmt::format("disk {} does not stand on backup {}", disk.index, newest));
    }
    bool published = false;
    for (const WantedOfDisk& wanted : wanted_.disks) {
      const auto to = std::ranges::find(backup.disks, wanted.index, &HubBackup::Disk::index);
      if (to == backup.disks.end()) throw std::runtime_error("the server has left a disk out");
      const auto patient = std::ranges::find(patients, &wanted, &Patient::wanted);
      write_one(patient == patients.end() ? nullptr : &*patient, *to, backup.id);
      if (domain) domain->require_unchanged();
      change_id_ = wanted.change_id.empty() ? "pull/" + backup.id : wanted.change_id;
      published = hub_.complete(backup.id, wanted.index, change_id_, options_.server_patience,
                                [this] { under_way_.require_uninterrupted(); });
    }
    if (!published) throw std::runtime_error("the server has not published the backup");
    under_way_.published();
    return backup.id;
  }

  /// What fails is often how the server ended the backup: that is the cause to tell.
  void write_one(Patient* patient, const HubBackup::Disk& to, const std::string& backup_id) {
    try {
      ring().run(write_disk(patient, to));
    } catch (const UsageError&) {
      throw;
    } catch (const std::exception& failure) {
      std::string text = fmt::format("disk {}: {}", to.index, failure.what());
      try {
        const std::string end = hub_.end_of(backup_id);
        if (!end.empty()) text += fmt::format("; the server's backup has {}", end);
      } catch (const std::exception&) {
      }
      throw std::runtime_error(text);
    }
  }

  /// A disk without damage is only connected to: the server completes none that nobody wrote to.
  io::Task<void> write_disk(Patient* patient, HubBackup::Disk to) {
    const auto targets =
        co_await connect_all(ring(), here_.runtime(), nbd::parse_uri(to.uri), 1, options_.tls, {});
    nbd::Client& target = *targets.front();
    io::Outcome<> done = co_await io::attempt([&]() -> io::Task<void> {
      if (patient != nullptr) co_await write_same(*patient, target);
    });
    co_await target.close();
    done.take();
  }

  /// Read once more, and compared once more: a source that is in use may have changed since.
  io::Task<void> write_same(Patient& patient, nbd::Client& target) {
    const std::vector<WantedCluster> clusters = std::exchange(patient.found.same, {});
    auto write = [&](const WantedCluster& cluster,
                     std::span<const std::byte> content) -> io::Task<void> {
      if (!cluster.is(content)) {
        patient.found.changed.push_back(cluster);
        co_return;
      }
      if (cluster.known == WantedCluster::Known::zero) {
        co_await target.write_zeroes(cluster.offset, cluster.length, io::ZeroMode::may_unmap);
      } else {
        co_await target.write_from(cluster.offset, content.first(cluster.length));
      }
      patient.found.same.push_back(cluster);
    };
    co_await read_each(*patient.source, *patient.wanted, clusters, write);
    co_await target.flush();
    std::ranges::sort(patient.found.same, {}, &WantedCluster::offset);
    std::ranges::sort(patient.found.changed, {}, &WantedCluster::offset);
  }

  /// As the server sees it now. The point is there, whatever fails here.
  void report_rest(const std::vector<Patient>& patients) {
    Wanted now;
    try {
      now = read_wanted(hub_, options_.vm_name, options_.repository_id);
    } catch (const std::exception& failure) {
      report_warning(options_.json,
                     fmt::format("the older points could not be asked about: {}", failure.what()));
      return;
    }
    report_still_damaged(options_.json, now.damaged_backups);
    for (const Patient& patient : patients) report_still_wanted(options_.json, patient.found, now);
    if (now.complete) return;
    report_warning(options_.json,
                   "more of the newest point may be damaged than was named: repair it again, after "
                   "another verification, or pull with --into-chain");
  }

  const PullOptions& options_;
  Hub& hub_;
  BackupUnderWay& under_way_;
  Wanted wanted_;
  std::string change_id_;  // of the disk that was completed last
  io::SteadyTime next_read_{};
  io::RingRuntime here_;
};

}  // namespace

void repair(const PullOptions& options, Hub& hub, BackupUnderWay& under_way) {
  Repair(options, hub, under_way).run();
}

}  // namespace app
