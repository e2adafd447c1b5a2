// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "app/api_call.h"
#include "app/options.h"
#include "engine/restore/copier.h"

namespace app {

/// What is registered or under way forbids what was asked for.
class PullRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A disk as it is to be registered.
struct HubDisk {
  std::optional<uint32_t> index;  ///< none: known by its label
  std::string label;              ///< "vda"; "": none
  uint64_t bytes = 0;
};

/// A backup that has been started for an external client.
struct HubBackup {
  struct Disk {
    uint32_t index = 0;
    bool is_full = false;          ///< it stands alone: everything is wanted
    std::string parent_backup_id;  ///< "": it stands alone
    std::string uri;               ///< of its export
  };
  std::string id;
  bool is_full = false;     ///< what is not sent reads as zeroes
  std::vector<Disk> disks;  ///< ascending index
};

/// The API of a running `varve serve`, as a client that writes backups sees it. Every call blocks
/// until the server has answered and throws ServerRefused, or what failed. Any thread.
class Hub {
 public:
  explicit Hub(HttpServerAddress server) : server_(std::move(server)) {}

  /// Makes the registered disks of a VM those given: registers an unknown VM, and what has grown,
  /// shrunk or come. Returns the index of each. A registered disk that is not among them is gone if
  /// `others_are_gone`, else PullRefused is thrown; likewise for indexes that leave a gap, and for
  /// a VM of a vCenter whose disks are to go.
  std::vector<uint32_t> register_disks(const std::string& vm_name,
                                       const std::vector<HubDisk>& disks, bool others_are_gone);

  /// Of the VM's points in a repository, the newest first; "" where the disks of one do not agree.
  std::vector<std::string> change_ids(const std::string& vm_name, const std::string& repository_id);

  /// The id of that point's backup. Throws std::runtime_error when there is none.
  std::string newest_backup(const std::string& vm_name, const std::string& repository_id);

  /// An incremental when `base` is given, else a full. Into the chain: a full, of which disks that
  /// have a point store what differs from it; `base`, where given, must be that point.
  HubBackup start(const PullOptions& options, const std::string& base, bool into_chain);
  /// Starts a backup that resumes a failed one, whose parent is `base` where that is given.
  HubBackup resume(const std::string& backup_id, const std::string& base);
  /// The running backup that resumes `backup_id`, if there is one.
  std::optional<HubBackup> successor_of(const std::string& backup_id, const std::string& vm_name);
  /// Whether the whole backup is published. Repeats what got no answer, for so long; `go_on` may
  /// throw meanwhile.
  bool complete(const std::string& backup_id, uint32_t disk_index, const std::string& change_id,
                io::Duration patience, const std::function<void()>& go_on);
  /// What of a disk differs between a backup and an older one, ascending.
  std::vector<engine::CopyRange> changes(const std::string& backup_id, const std::string& since,
                                         uint32_t disk_index);
  /// What the newest points of the VM lack, and its disks as registered, both as the server answers
  /// them.
  nlohmann::json wanted(const std::string& vm_name, const std::string& repository_id);
  nlohmann::json vm_disks(const std::string& vm_name);
  /// A backup and its disks, as the server answers them.
  nlohmann::json backup(const std::string& backup_id);
  nlohmann::json disks_of(const std::string& backup_id);
  /// "" of a VM that is not registered.
  std::string context_id_of(const std::string& vm_name);
  /// Why the backup has ended, in the server's words; "" while it is under way.
  std::string end_of(const std::string& backup_id);
  struct State {
    bool is_active = false, is_resumable = false;
  };
  State state_of(const std::string& backup_id);
  /// Throws ServerRefused for an unknown repository.
  void require_repository(const std::string& repository_id);
  void cancel(const std::string& backup_id, const std::string& reason);
  /// It fails with this reason, and what has arrived stays if it was started so.
  void fail(const std::string& backup_id, const std::string& reason);

 private:
  nlohmann::json call(const std::string& method, const std::string& target,
                      const nlohmann::json& body = nullptr,
                      std::chrono::seconds patience = std::chrono::seconds(60));
  /// Of a VM in a repository, newest first.
  nlohmann::json points(const std::string& vm_name, const std::string& repository_id);
  HubBackup started(const nlohmann::json& answer);
  void read_disks(const nlohmann::json& started, HubBackup& backup);

  HttpServerAddress server_;
};

}  // namespace app
