// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <ctime>
#include <optional>
#include <pugixml.hpp>
#include <random>
#include <sstream>
#include <string_view>
#include <thread>
#include <utility>

#include "app/pull/hub.h"
#include "app/pull/libvirt_domain.h"
#include "app/pull/libvirt_freeze.h"

namespace app {
namespace {

constexpr const char* kCheckpointPrefix = "varve-";
constexpr std::string_view kSocketPrefix = "/var/tmp/varve-pull-";
constexpr int kTries = 50;  // a tenth of a second apart

bool has_agent(const std::string& domain_xml) {
  pugi::xml_document document;
  document.load_string(domain_xml.c_str());
  for (const pugi::xml_node channel :
       document.child("domain").child("devices").children("channel")) {
    const pugi::xml_node target = channel.child("target");
    if (std::string_view(target.attribute("name").as_string()) == "org.qemu.guest_agent.0" &&
        std::string_view(target.attribute("state").as_string()) == "connected") {
      return true;
    }
  }
  return false;
}

std::string text_of(const pugi::xml_document& document) {
  std::ostringstream text;
  document.save(text, "", pugi::format_raw);
  return text.str();
}

/// In a directory that QEMU can write to as any user; the name cannot be guessed in advance.
std::string socket_of_job() {
  std::random_device random;
  return fmt::format("{}{}-{:08x}{:08x}.sock", kSocketPrefix, ::getpid(), random(), random());
}

/// The process that made a socket of that name; nothing if it was not a pull.
std::optional<pid_t> maker_of(std::string_view socket) {
  if (!socket.starts_with(kSocketPrefix)) return std::nullopt;
  pid_t process = 0;
  const std::string_view rest = socket.substr(kSocketPrefix.size());
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), process);
  if (error != std::errc() || process <= 0) return std::nullopt;
  return process;
}

class RunningDomain final : public DomainBackup {
 public:
  RunningDomain(Connection connection, Domain domain, const LibvirtRequest& request)
      : connection_(std::move(connection)),
        domain_(std::move(domain)),
        replaced_(request.checkpoints),
        only_read_(request.only_read) {
    if (!request.full) since_ = request.newest();
    name_ = virDomainGetName(domain_.get());
  }

  void begin(const std::string& domain_xml, bool freeze, const Warn& warn) {
    domain_xml_ = domain_xml;
    domain_disks_ = disks_of(domain_xml);
    if (domain_disks_.empty()) {
      throw std::runtime_error(fmt::format("domain {} has no disk to back up", name_));
    }
    for (const DomainDisk& disk : domain_disks_) {
      if (disk.format != "qcow2" && !only_read_) {
        warn(
            fmt::format("disk {} is {}: libvirt keeps no checkpoint of it, and it is always read "
                        "whole",
                        disk.target, disk.format));
      }
    }
    end_job_of_killed_pull();
    if (!since_.empty() && !find_since()) {
      warn(fmt::format("libvirt has no checkpoint {} any more: a full backup is made", since_));
      since_.clear();
    }
    if (freeze && has_agent(domain_xml)) freeze_.emplace(domain_.get(), warn);
    const bool started = start();
    if (freeze_) freeze_->end();
    if (started) return;
    const int code = last_code();
    const bool is_lost =
        code == VIR_ERR_CHECKPOINT_INCONSISTENT || code == VIR_ERR_NO_DOMAIN_CHECKPOINT;
    if (!since_.empty() && is_lost) {
      warn(fmt::format("checkpoint {} cannot be used ({}): a full backup is made", since_,
                       last_words()));
      since_.clear();
      if (start()) return;
    }
    throw libvirt_failure("begin the backup of domain " + name_);
  }

  ~RunningDomain() override {
    if (!begun_) return;
    end_job();
    remove_checkpoint(checkpoint_);
  }

  void publish() override {
    begun_ = false;
    end_job();
    freeze_.reset();  // what it has to warn of comes before the pull ends
    // They hold bitmaps that every write of the guest has to mark.
    if (only_read_) return;
    for (const std::string& name : checkpoints()) {
      if (std::ranges::find(replaced_, name) != replaced_.end()) remove_checkpoint(name);
    }
  }
  void require_unchanged() const override {}

 private:
  /// A pull that was killed has left its job, and libvirt takes no second one.
  void end_job_of_killed_pull() {
    const Text xml(virDomainBackupGetXMLDesc(domain_.get(), 0));
    if (!xml) return;
    pugi::xml_document document;
    document.load_string(xml.get());
    const std::string socket =
        document.child("domainbackup").child("server").attribute("socket").as_string();
    const std::optional<pid_t> maker = maker_of(socket);
    if (!maker || ::kill(*maker, 0) == 0 || errno != ESRCH) {
      throw PullRefused(fmt::format(
          "domain {} has a backup job already; 'virsh domjobabort {}' ends it", name_, name_));
    }
    socket_ = socket;
    end_job();
    remove_checkpoints_of(*maker);
  }

  /// Names of all that libvirt knows.
  std::vector<std::string> checkpoints() {
    virDomainCheckpointPtr* all = nullptr;
    const int count = virDomainListAllCheckpoints(domain_.get(), &all, 0);
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) {
      const Checkpoint owned(all[i]);
      names.emplace_back(virDomainCheckpointGetName(owned.get()));
    }
    if (count >= 0) ::free(all);
    return names;
  }

  void remove_checkpoints_of(pid_t process) {
    const std::string made_by = fmt::format("-{}-", process);
    for (const std::string& name : checkpoints()) {
      const bool is_its = name.starts_with(kCheckpointPrefix) && name.find(made_by) != name.npos;
      // The pull was killed after it had published: that point is the newest.
      const bool is_newest = !replaced_.empty() && name == replaced_.front();
      if (is_its && !is_newest) remove_checkpoint(name);
    }
  }

  /// A transient domain loses its checkpoints with its definition; the bitmaps are in the images,
  /// and libvirt believes in them again once it is told their name.
  bool find_since() {
    const Checkpoint known(virDomainCheckpointLookupByName(domain_.get(), since_.c_str(), 0));
    if (known) return true;
    pugi::xml_document document, domain;
    domain.load_string(domain_xml_.c_str());
    pugi::xml_node checkpoint = document.append_child("domaincheckpoint");
    checkpoint.append_child("name").text() = since_.c_str();
    checkpoint.append_child("creationTime").text() = static_cast<long long>(::time(nullptr));
    pugi::xml_node disks = checkpoint.append_child("disks");
    for (const DomainDisk& disk : domain_disks_) {
      pugi::xml_node entry = disks.append_child("disk");
      entry.append_attribute("name") = disk.target.c_str();
      entry.append_attribute("checkpoint") = disk.format == "qcow2" ? "bitmap" : "no";
      if (disk.format == "qcow2") entry.append_attribute("bitmap") = since_.c_str();
    }
    checkpoint.append_copy(domain.child("domain"));
    const Checkpoint redefined(virDomainCheckpointCreateXML(
        domain_.get(), text_of(document).c_str(),
        VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE | VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE));
    return redefined != nullptr;
  }

  /// Whether libvirt has begun the job; its last error says why not.
  bool start() {
    static std::atomic<int> number{0};
    socket_ = socket_of_job();
    checkpoint_ =
        fmt::format("{}{}-{}-{}", kCheckpointPrefix, ::time(nullptr), ::getpid(), ++number);
    disks_.clear();
    pugi::xml_document backup, checkpoint;
    pugi::xml_node job = backup.append_child("domainbackup");
    job.append_attribute("mode") = "pull";
    if (!since_.empty()) job.append_child("incremental").text() = since_.c_str();
    pugi::xml_node server = job.append_child("server");
    server.append_attribute("transport") = "unix";
    server.append_attribute("socket") = socket_.c_str();
    pugi::xml_node disks = job.append_child("disks");
    pugi::xml_node new_checkpoint = checkpoint.append_child("domaincheckpoint");
    new_checkpoint.append_child("name").text() = checkpoint_.c_str();
    pugi::xml_node checkpoint_disks = new_checkpoint.append_child("disks");
    bool any_checkpoint = false;
    for (const DomainDisk& disk : domain_disks_) {
      const bool tracked = disk.format == "qcow2";
      pugi::xml_node entry = disks.append_child("disk");
      entry.append_attribute("name") = disk.target.c_str();
      entry.append_attribute("backup") = "yes";
      entry.append_attribute("type") = "file";
      // For what the guest overwrites meanwhile; libvirt makes it and removes it.
      const std::string scratch = fmt::format("{}.{}", disk.is_file ? disk.file : socket_,
                                              disk.is_file ? checkpoint_ : disk.target);
      entry.append_child("scratch").append_attribute("file") = scratch.c_str();
      LibvirtDisk made{disk.target, uri_of(socket_, disk.target), ""};
      if (!since_.empty()) {
        entry.append_attribute("backupmode") = tracked ? "incremental" : "full";
        if (tracked) {
          made.bitmap = "changed-" + disk.target;
          entry.append_attribute("incremental") = since_.c_str();
          entry.append_attribute("exportbitmap") = made.bitmap.c_str();
        }
      }
      disks_.push_back(std::move(made));
      pugi::xml_node point = checkpoint_disks.append_child("disk");
      point.append_attribute("name") = disk.target.c_str();
      point.append_attribute("checkpoint") = tracked ? "bitmap" : "no";
      any_checkpoint = any_checkpoint || (tracked && !only_read_);
    }
    if (!any_checkpoint) checkpoint_.clear();
    const std::string checkpoint_xml = any_checkpoint ? text_of(checkpoint) : "";
    begun_ = virDomainBackupBegin(domain_.get(), text_of(backup).c_str(),
                                  any_checkpoint ? checkpoint_xml.c_str() : nullptr, 0) == 0;
    incremental_ = begun_ && !since_.empty();
    return begun_;
  }

  /// Returns when libvirt has ended it: until then it refuses what comes next.
  void end_job() noexcept {
    virDomainAbortJob(domain_.get());
    virDomainJobInfo info{};
    for (int i = 0; i < kTries && virDomainGetJobInfo(domain_.get(), &info) == 0 &&
                    info.type != VIR_DOMAIN_JOB_NONE;
         ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    ::unlink(socket_.c_str());
  }

  void remove_checkpoint(const std::string& name) noexcept {
    if (name.empty()) return;
    const Checkpoint found(virDomainCheckpointLookupByName(domain_.get(), name.c_str(), 0));
    if (!found) return;
    for (int i = 0; i < kTries && virDomainCheckpointDelete(found.get(), 0) < 0; ++i) {
      // One whose bitmap is lost is still known by name.
      if (last_code() == VIR_ERR_CHECKPOINT_INCONSISTENT || i + 1 == kTries) {
        virDomainCheckpointDelete(found.get(), VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY);
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  Connection connection_;
  Domain domain_;
  std::vector<std::string> replaced_;  // what the new checkpoint is in the place of, newest first
  const bool only_read_;
  std::string domain_xml_, socket_;
  std::vector<DomainDisk> domain_disks_;
  std::optional<Freeze> freeze_;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<LibvirtBackup> begin_running(Connection connection, Domain domain,
                                             const std::string& domain_xml,
                                             const LibvirtRequest& request, const Warn& warn) {
  auto backup = std::make_unique<RunningDomain>(std::move(connection), std::move(domain), request);
  backup->begin(domain_xml, request.freeze, warn);
  return backup;
}

}  // namespace app
