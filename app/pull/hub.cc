// SPDX-License-Identifier: Apache-2.0
#include "app/pull/hub.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <thread>
#include <utility>

#include "app/registration.h"
#include "io/counted.h"
#include "io/percent_encoding.h"

namespace app {
namespace {

using Json = nlohmann::json;

/// Sealing a disk makes everything durable that is still in memory.
constexpr std::chrono::seconds kCompletePatience = std::chrono::hours(1);
/// A publish that an error holds up is tried again by the server; so is the question about it.
constexpr std::chrono::seconds kCompletePause(1);
constexpr int kCompleteAttempts = 600;

/// What is registered of a VM beside what is to be.
class Registration {
 public:
  Registration(const std::string& vm_name, const std::vector<HubDisk>& disks)
      : vm_name_(vm_name), disks_(disks), indexes_(disks.size()) {}

  /// Takes over what is there. A disk that was taken away and comes again keeps its index.
  void compare(const Json& vm, bool others_are_gone) {
    request_ = context_again(vm.at("context"));
    if (others_are_gone && !request_.value("vcenter_host", "").empty()) {
      throw PullRefused(fmt::format("VM {} is registered as one of vCenter {}", vm_name_,
                                    request_["vcenter_host"].get<std::string>()));
    }
    for (const Json& known : vm.at("disks")) {
      const uint32_t index = known.at("disk_index");
      const bool removed = known.value("removed", false);
      next_index_ = std::max(next_index_, index + 1);
      next_key_ = std::max(next_key_, known.at("vmware_disk_key").get<uint32_t>() + 1);
      const auto given = std::find_if(disks_.begin(), disks_.end(), [&](const HubDisk& disk) {
        return disk.index ? *disk.index == index : disk.label == known.value("label", "");
      });
      if (given == disks_.end()) {
        if (!removed && !others_are_gone) throw PullRefused(missing(known));
        differs_ = differs_ || !removed;
        continue;
      }
      indexes_[static_cast<size_t>(given - disks_.begin())] = index;
      differs_ = differs_ || removed || known.at("capacity_bytes") != given->bytes;
      Json same = registered_again(known);
      same["capacity_bytes"] = given->bytes;
      request_["disks"].push_back(std::move(same));
    }
  }

  void add_new() {
    for (size_t at = 0; at < disks_.size(); ++at) {
      if (indexes_[at]) continue;
      const HubDisk& disk = disks_[at];
      if (disk.index && *disk.index != next_index_) {
        throw PullRefused(
            fmt::format("disk {} of VM {}: the disks of a VM are numbered without a gap, and the "
                        "next new one is {}",
                        *disk.index, vm_name_, next_index_));
      }
      Json fresh = {{"disk_id", fmt::format("disk-{}", next_key_++)},
                    {"capacity_bytes", disk.bytes}};
      if (!disk.label.empty()) fresh["label"] = disk.label;
      request_["disks"].push_back(std::move(fresh));
      indexes_[at] = next_index_++;
      differs_ = true;
    }
  }

  bool differs() const { return differs_; }
  const Json& request() const { return request_; }
  std::vector<uint32_t> indexes() const {
    std::vector<uint32_t> indexes;
    for (const auto& index : indexes_) indexes.push_back(index.value());
    return indexes;
  }

 private:
  std::string missing(const Json& known) const {
    const uint32_t index = known.at("disk_index");
    return fmt::format(
        "VM {} has a disk {} ({}) and there is no --disk {}=SOURCE; a backup has all disks "
        "of a VM. If it is gone, leave it out: `varve vm add {} --replace` with --disk KEY=SIZE of "
        "each of the others",
        vm_name_, index, io::counted(known.at("capacity_bytes").get<uint64_t>(), "byte"), index,
        vm_name_);
  }

  const std::string& vm_name_;
  const std::vector<HubDisk>& disks_;
  std::vector<std::optional<uint32_t>> indexes_;
  Json request_ = Json::object();
  uint32_t next_index_ = 0, next_key_ = 0;
  bool differs_ = false;
};

/// "2000:nbd://hub:10100/a,2001:nbd://hub:10101/b" by VMware key.
std::map<uint32_t, std::string> targets_by_key(const std::string& text) {
  std::map<uint32_t, std::string> targets;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string one = text.substr(at, end - at);
    const size_t colon = one.find(':');
    uint32_t key = 0;
    std::from_chars(one.data(), one.data() + std::min(colon, one.size()), key);
    if (colon != std::string::npos) targets[key] = one.substr(colon + 1);
    at = end + 1;
  }
  return targets;
}

}  // namespace

nlohmann::json Hub::call(const std::string& method, const std::string& target, const Json& body,
                         std::chrono::seconds patience) {
  return api_call(server_, {.method = method,
                            .target = target,
                            .body = body.is_null() ? "" : body.dump(),
                            .patience = patience});
}

std::vector<uint32_t> Hub::register_disks(const std::string& vm_name,
                                          const std::vector<HubDisk>& disks, bool others_are_gone) {
  const std::string target = "/vm-contexts/" + io::percent_encoded(vm_name);
  Registration registration(vm_name, disks);
  try {
    registration.compare(call("GET", target), others_are_gone);
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
  }
  registration.add_new();
  if (registration.differs()) call("PUT", target, registration.request());
  return registration.indexes();
}

nlohmann::json Hub::points(const std::string& vm_name, const std::string& repository_id) {
  Json found = Json::array();
  try {
    const Json answer =
        call("GET", fmt::format("/points?vm_name={}", io::percent_encoded(vm_name)));
    for (const Json& point : answer.at("points")) {
      if (point.at("repository_id") == repository_id) found.push_back(point);
    }
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;  // the VM is not registered yet
  }
  return found;
}

std::vector<std::string> Hub::change_ids(const std::string& vm_name,
                                         const std::string& repository_id) {
  std::vector<std::string> ids;
  Json backup;
  for (const Json& point : points(vm_name, repository_id)) {
    const std::string change_id = point.at("change_id");
    if (point.at("backup_id") != std::exchange(backup, point.at("backup_id"))) {
      ids.push_back(change_id);
    } else if (ids.back() != change_id) {
      ids.back().clear();
    }
  }
  return ids;
}

std::string Hub::newest_backup(const std::string& vm_name, const std::string& repository_id) {
  const Json found = points(vm_name, repository_id);
  if (found.empty()) {
    throw std::runtime_error(
        fmt::format("VM {} has no point in repository {}", vm_name, repository_id));
  }
  return found.front().at("backup_id");
}

HubBackup Hub::start(const PullOptions& options, const std::string& base, bool into_chain) {
  Json request = {{"vm_name", options.vm_name},
                  {"repository_id", options.repository_id},
                  {"backup_type", base.empty() || into_chain ? "full" : "incremental"},
                  {"client", "external"}};
  if (!base.empty()) request["base"] = base;
  if (into_chain) request["into_chain"] = true;
  if (options.keep_partial && !options.trim_source) request["keep_partial"] = true;
  return started(call("POST", "/backups", request));
}

HubBackup Hub::resume(const std::string& backup_id, const std::string& base) {
  Json request = {{"resume", backup_id}};
  if (!base.empty()) request["base"] = base;
  return started(call("POST", "/backups", request));
}

std::optional<HubBackup> Hub::successor_of(const std::string& backup_id,
                                           const std::string& vm_name) {
  const Json answer =
      call("GET", fmt::format("/backups?status=running&vm_name={}", io::percent_encoded(vm_name)));
  for (const Json& backup : answer.at("backups")) {
    if (backup.value("resumes", "") == backup_id) return started(backup);
  }
  return std::nullopt;
}

HubBackup Hub::started(const Json& answer) {
  HubBackup backup{
      .id = answer.at("backup_id"), .is_full = answer.at("backup_type") == "full", .disks = {}};
  try {
    read_disks(answer, backup);
  } catch (...) {
    try {  // fail() keeps what the resumed backup had received
      const bool resumes = answer.contains("resumes");
      const char* const why = "the client could not read the answer";
      resumes ? fail(backup.id, why) : cancel(backup.id, why);
    } catch (const std::exception&) {
      // What came first is the cause; a server that restarts ends the backup by itself.
    }
    throw;
  }
  return backup;
}

void Hub::read_disks(const Json& started, HubBackup& backup) {
  const auto targets = targets_by_key(started.at("nbd_targets_string"));
  const Json disks = disks_of(backup.id);
  for (const Json& disk : disks) {
    const auto uri = targets.find(disk.at("vmware_disk_key"));
    if (uri == targets.end()) throw std::runtime_error("the server names no target for a disk");
    backup.disks.push_back({.index = disk.at("disk_index"),
                            .is_full = disk.at("backup_type") == "full",
                            .parent_backup_id = disk.value("parent_backup_id", ""),
                            .uri = uri->second});
  }
}

bool Hub::complete(const std::string& backup_id, uint32_t disk_index, const std::string& change_id,
                   io::Duration patience, const std::function<void()>& go_on) {
  const std::string target = fmt::format("/backups/{}/complete", io::percent_encoded(backup_id));
  const Json body = {{"disk_id", disk_index}, {"change_id", change_id}};
  const auto begun = std::chrono::steady_clock::now();
  for (int attempt = 1;; ++attempt) {
    try {
      return call("POST", target, body, kCompletePatience).value("job_status", "") == "completed";
    } catch (const ServerRefused& refused) {
      if (refused.code() != "being_published" || attempt == kCompleteAttempts) throw;
    } catch (const std::runtime_error&) {
      // The answer was lost, perhaps not the request: the same one is answered once it is done.
      if (std::chrono::steady_clock::now() - begun > patience) throw;
    }
    go_on();
    std::this_thread::sleep_for(kCompletePause);
  }
}

std::vector<engine::CopyRange> Hub::changes(const std::string& backup_id, const std::string& since,
                                            uint32_t disk_index) {
  std::vector<engine::CopyRange> ranges;
  Json next = 0;
  while (!next.is_null()) {
    const Json page =
        call("GET", fmt::format("/backups/{}/changes?since={}&disk_id={}&offset={}",
                                io::percent_encoded(backup_id), io::percent_encoded(since),
                                disk_index, next.get<uint64_t>()));
    for (const Json& range : page.at("ranges")) {
      ranges.push_back({range.at("offset"), range.at("length"), false});
    }
    next = page.at("next_offset");
  }
  return ranges;
}

nlohmann::json Hub::wanted(const std::string& vm_name, const std::string& repository_id) {
  return call("GET", fmt::format("/vm-contexts/{}/wanted?repository_id={}",
                                 io::percent_encoded(vm_name), io::percent_encoded(repository_id)));
}

nlohmann::json Hub::vm_disks(const std::string& vm_name) {
  Json disks = Json::array();
  const Json vm = call("GET", "/vm-contexts/" + io::percent_encoded(vm_name));
  for (const Json& disk : vm.at("disks")) {
    if (!disk.value("removed", false)) disks.push_back(disk);
  }
  return disks;
}

nlohmann::json Hub::backup(const std::string& backup_id) {
  return call("GET", "/backups/" + io::percent_encoded(backup_id));
}

nlohmann::json Hub::disks_of(const std::string& backup_id) {
  return call("GET", fmt::format("/backups/{}/disks", io::percent_encoded(backup_id))).at("disks");
}

std::string Hub::context_id_of(const std::string& vm_name) {
  try {
    const Json vm = call("GET", "/vm-contexts/" + io::percent_encoded(vm_name));
    return vm.at("context").at("context_id");
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
    return "";
  }
}

std::string Hub::end_of(const std::string& backup_id) {
  const Json ended = backup(backup_id);
  const std::string state = ended.value("state", "");
  if (state == "preparing" || state == "running" || state == "finalizing") return "";
  const std::string cause = ended.value("error_message", "");
  return cause.empty() ? state : fmt::format("{}: {}", state, cause);
}

Hub::State Hub::state_of(const std::string& backup_id) {
  const Json known = backup(backup_id);
  const std::string state = known.value("state", "");
  return {.is_active = state == "preparing" || state == "running" || state == "finalizing",
          .is_resumable = known.value("resumable", false)};
}

void Hub::fail(const std::string& backup_id, const std::string& reason) {
  call("POST", "/telemetry/backup/" + io::percent_encoded(backup_id),
       {{"status", "failed"}, {"error", {{"message", reason}}}});
}

void Hub::require_repository(const std::string& repository_id) {
  call("GET", "/repositories/" + io::percent_encoded(repository_id));
}

void Hub::cancel(const std::string& backup_id, const std::string& reason) {
  call("POST", fmt::format("/backups/{}/cancel", io::percent_encoded(backup_id)),
       {{"reason", reason}});
}

}  // namespace app
