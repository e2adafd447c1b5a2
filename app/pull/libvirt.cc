#include "app/pull/libvirt.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <pugixml.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

#include "io/failure.h"
#include "io/percent_encoding.h"

extern char** environ;

namespace app {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

/// A guest must not stand still for longer: a frozen file system stops whoever writes.
constexpr seconds kFreezeDeadline(10);
constexpr seconds kServerPatience(20);
constexpr const char* kCheckpointPrefix = "varve-";

struct Freed {
  void operator()(virConnectPtr p) const { virConnectClose(p); }
  void operator()(virDomainPtr p) const { virDomainFree(p); }
  void operator()(virDomainCheckpointPtr p) const { virDomainCheckpointFree(p); }
  void operator()(char* p) const { ::free(p); }
};
using Connection = std::unique_ptr<std::remove_pointer_t<virConnectPtr>, Freed>;
using Domain = std::unique_ptr<std::remove_pointer_t<virDomainPtr>, Freed>;
using Checkpoint = std::unique_ptr<std::remove_pointer_t<virDomainCheckpointPtr>, Freed>;
using Text = std::unique_ptr<char, Freed>;

std::string last_words() {
  const virErrorPtr error = virGetLastError();
  return error != nullptr && error->message != nullptr ? error->message : "unknown error";
}

std::runtime_error libvirt_failure(const std::string& what) {
  return std::runtime_error(fmt::format("{}: {}", what, last_words()));
}

struct DomainDisk {
  std::string target, file, format;
  bool is_file = true;  // else a block device, or what libvirt opens over a network
};

/// The disks that hold data of the guest: no CD, no floppy, nothing that it cannot write.
std::vector<DomainDisk> disks_of(const std::string& domain_xml) {
  pugi::xml_document document;
  document.load_string(domain_xml.c_str());
  std::vector<DomainDisk> disks;
  for (const pugi::xml_node disk : document.child("domain").child("devices").children("disk")) {
    const std::string device = disk.attribute("device").as_string("disk");
    if ((device != "disk" && device != "lun") || disk.child("readonly") || !disk.child("source")) {
      continue;
    }
    const pugi::xml_node source = disk.child("source");
    disks.push_back({disk.child("target").attribute("dev").as_string(),
                     source.attribute("file").as_string(source.attribute("dev").as_string()),
                     disk.child("driver").attribute("type").as_string("raw"),
                     !source.attribute("file").empty()});
  }
  return disks;
}

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

std::string uri_of(const std::string& socket, const std::string& export_name) {
  return fmt::format("nbd+unix:///{}?socket={}", io::percent_encoded(export_name),
                     io::percent_encoded(socket));
}

/// In a directory that QEMU may write to, whoever it runs as. It lets nobody else connect.
std::string socket_path() {
  static std::atomic<int> number{0};
  return fmt::format("/var/tmp/varve-pull-{}-{}-{}.sock", ::getpid(), ::time(nullptr), ++number);
}

/// The guest's file systems stand still between the two calls. A thaw comes in any case, at the
/// deadline too, while begin() waits for libvirt.
class Freeze {
 public:
  Freeze(virDomainPtr domain, const std::function<void(const std::string&)>& warn)
      : domain_(domain), warn_(warn) {
    virDomainAgentSetResponseTimeout(domain, kFreezeDeadline.count(), 0);
    if (virDomainFSFreeze(domain, nullptr, 0, 0) < 0) {
      warn("the guest's file systems were not frozen: " + last_words());
      return;
    }
    frozen_ = true;
    guard_ = std::thread([this] {
      const auto end = steady_clock::now() + kFreezeDeadline;
      while (frozen_ && steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
      thaw();
    });
  }
  ~Freeze() {
    thaw();
    if (guard_.joinable()) guard_.join();
  }
  Freeze(const Freeze&) = delete;

  void thaw() {
    if (!frozen_.exchange(false)) return;
    if (virDomainFSThaw(domain_, nullptr, 0, 0) < 0) {
      warn_("the guest's file systems were not thawed: " + last_words());
    }
  }

 private:
  virDomainPtr domain_;
  const std::function<void(const std::string&)>& warn_;
  std::atomic<bool> frozen_ = false;
  std::thread guard_;
};

/// What both kinds share.
class DomainBackup : public LibvirtBackup {
 public:
  const std::string& domain_name() const final { return name_; }
  const std::vector<LibvirtDisk>& disks() const final { return disks_; }
  const std::string& checkpoint() const final { return checkpoint_; }
  bool incremental() const final { return incremental_; }
  const std::string& since() const final { return since_; }

 protected:
  std::string name_, since_, checkpoint_;
  std::vector<LibvirtDisk> disks_;
  bool incremental_ = false;
};

class RunningDomain final : public DomainBackup {
 public:
  RunningDomain(Connection connection, Domain domain, std::string since)
      : connection_(std::move(connection)), domain_(std::move(domain)) {
    since_ = std::move(since);
    name_ = virDomainGetName(domain_.get());
  }

  void begin(const std::string& domain_xml, bool freeze,
             const std::function<void(const std::string&)>& warn) {
    domain_xml_ = domain_xml;
    domain_disks_ = disks_of(domain_xml);
    if (domain_disks_.empty()) {
      throw std::runtime_error(fmt::format("domain {} has no disk to back up", name_));
    }
    for (const DomainDisk& disk : domain_disks_) {
      if (disk.format != "qcow2") {
        warn(
            fmt::format("disk {} is {}: libvirt keeps no checkpoint of it, and it is always read "
                        "whole",
                        disk.target, disk.format));
      }
    }
    if (!since_.empty() && !find_since()) {
      warn(fmt::format("libvirt has no checkpoint {} any more: a full backup is made", since_));
      since_.clear();
    }
    std::unique_ptr<Freeze> frozen;
    if (freeze && has_agent(domain_xml)) frozen = std::make_unique<Freeze>(domain_.get(), warn);
    if (!start() && !since_.empty()) {
      warn(fmt::format("checkpoint {} cannot be used ({}): a full backup is made", since_,
                       last_words()));
      broken_ = std::exchange(since_, "");
      if (!start()) throw libvirt_failure("begin the backup of domain " + name_);
    } else if (!begun_) {
      throw libvirt_failure("begin the backup of domain " + name_);
    }
  }

  ~RunningDomain() override {
    if (!begun_) return;
    end_job();
    remove_checkpoint(checkpoint_);
  }

  void publish() override {
    begun_ = false;
    end_job();
    // Older ones hold bitmaps that every write of the guest has to mark.
    if (!since_.empty()) remove_checkpoint(since_);
    if (!broken_.empty()) remove_checkpoint(broken_);
  }

 private:
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
    socket_ = socket_path();
    checkpoint_ =
        fmt::format("{}{}-{}{}", kCheckpointPrefix, ::time(nullptr), ::getpid(), ++number);
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
      any_checkpoint = any_checkpoint || tracked;
    }
    if (!any_checkpoint) checkpoint_.clear();
    const std::string checkpoint_xml = any_checkpoint ? text_of(checkpoint) : "";
    begun_ = virDomainBackupBegin(domain_.get(), text_of(backup).c_str(),
                                  any_checkpoint ? checkpoint_xml.c_str() : nullptr, 0) == 0;
    incremental_ = begun_ && !since_.empty();
    return begun_;
  }

  void end_job() noexcept {
    virDomainAbortJob(domain_.get());
    ::unlink(socket_.c_str());
  }

  void remove_checkpoint(const std::string& name) noexcept {
    if (name.empty()) return;
    const Checkpoint found(virDomainCheckpointLookupByName(domain_.get(), name.c_str(), 0));
    if (!found) return;
    // One whose bitmap is lost is still known by name.
    if (virDomainCheckpointDelete(found.get(), 0) < 0) {
      virDomainCheckpointDelete(found.get(), VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY);
    }
  }

  Connection connection_;
  Domain domain_;
  std::string broken_, domain_xml_, socket_;
  std::vector<DomainDisk> domain_disks_;
  bool begun_ = false;
};

/// A program on $PATH that hears the signals which this one keeps for itself, and says nothing.
std::pair<pid_t, int> spawned(const std::vector<char*>& arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  const int error =
      ::posix_spawnp(&child, arguments.front(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  return {child, error};
}

/// A domain that is off: each disk is served by a qemu-nbd of its own, as it lies. Nobody writes,
/// so the bitmap of the last checkpoint tells what has changed since then, and what will be written
/// later adds to it: the point keeps the name of that checkpoint.
class IdleDomain final : public DomainBackup {
 public:
  IdleDomain(std::string name, std::string since) {
    name_ = std::move(name);
    since_ = std::move(since);
  }
  ~IdleDomain() override { stop(); }

  void begin(const std::string& domain_xml, const std::function<void(const std::string&)>& warn) {
    const std::vector<DomainDisk> disks = disks_of(domain_xml);
    if (disks.empty()) throw std::runtime_error(fmt::format("domain {} has no disk", name_));
    if (!since_.empty() && !serve_all(disks, true)) {
      warn(fmt::format("the images have no bitmap {}: a full backup is made", since_));
      stop();
      since_.clear();
    }
    if (since_.empty() && !serve_all(disks, false)) {
      stop();
      throw std::runtime_error(
          fmt::format("qemu-nbd does not serve the disks of domain {}", name_));
    }
    incremental_ = !since_.empty();
    checkpoint_ = since_;
  }
  void publish() override { stop(); }

 private:
  bool serve_all(const std::vector<DomainDisk>& disks, bool with_bitmap) {
    for (const DomainDisk& disk : disks) {
      const bool tracked = with_bitmap && disk.format == "qcow2";
      if (!serve(disk, tracked)) return false;
    }
    return true;
  }

  bool serve(const DomainDisk& disk, bool tracked) {
    const std::string socket = socket_path();
    std::vector<std::string> words = {"qemu-nbd", "--read-only", "--persistent", "--shared=16",
                                      "--format", disk.format,   "--socket",     socket};
    if (tracked) words.insert(words.end(), {"--bitmap", since_});
    words.push_back(disk.file);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const auto [child, error] = spawned(arguments);
    if (error != 0) throw io::failure("start", "qemu-nbd", error);
    servers_.push_back({child, socket});
    for (const auto end = steady_clock::now() + kServerPatience; steady_clock::now() < end;) {
      struct stat status {};
      if (::stat(socket.c_str(), &status) == 0) {
        disks_.push_back({disk.target, uri_of(socket, ""), tracked ? since_ : ""});
        return true;
      }
      if (::waitpid(child, nullptr, WNOHANG) == child) {
        servers_.pop_back();
        return false;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  void stop() noexcept {
    for (const Server& server : servers_) {
      ::kill(server.process, SIGTERM);
      ::waitpid(server.process, nullptr, 0);
      ::unlink(server.socket.c_str());
    }
    servers_.clear();
    disks_.clear();
  }

  struct Server {
    pid_t process;
    std::string socket;
  };
  std::vector<Server> servers_;
};

void ignore_errors(void*, virErrorPtr) {}  // libvirt would print them; they are thrown here

}  // namespace

std::unique_ptr<LibvirtBackup> LibvirtBackup::begin(
    const LibvirtRequest& request, const std::function<void(const std::string&)>& warn) {
  virSetErrorFunc(nullptr, ignore_errors);
  Connection connection(
      virConnectOpen(request.connect.empty() ? nullptr : request.connect.c_str()));
  if (!connection) throw libvirt_failure("connect to libvirt");
  Domain domain(virDomainLookupByName(connection.get(), request.domain.c_str()));
  if (!domain) throw libvirt_failure(fmt::format("find domain {}", request.domain));
  const Text xml(virDomainGetXMLDesc(domain.get(), 0));
  if (!xml) throw libvirt_failure(fmt::format("describe domain {}", request.domain));
  if (virDomainIsActive(domain.get()) == 1) {
    auto backup =
        std::make_unique<RunningDomain>(std::move(connection), std::move(domain), request.since);
    backup->begin(xml.get(), request.freeze, warn);
    return backup;
  }
  auto backup = std::make_unique<IdleDomain>(virDomainGetName(domain.get()), request.since);
  backup->begin(xml.get(), warn);
  return backup;
}

}  // namespace app
