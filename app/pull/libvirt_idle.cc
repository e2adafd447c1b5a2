// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <string_view>
#include <thread>
#include <utility>

#include "app/pull/libvirt_domain.h"
#include "io/big_endian.h"
#include "io/failure.h"
#include "io/owned_fd.h"
#include "io/spawn_program.h"

namespace app {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kServerPatience(20);

/// A domain that is off: each disk is served by a qemu-nbd of its own, as it is. It is not
/// written to, so the bitmap of the last checkpoint tells what has changed since then, and what
/// will be written later adds to it: the point keeps the name of that checkpoint.
class IdleDomain final : public DomainBackup {
 public:
  IdleDomain(Connection connection, Domain domain, const LibvirtRequest& request)
      : connection_(std::move(connection)), domain_(std::move(domain)) {
    name_ = virDomainGetName(domain_.get());
    if (!request.full) since_ = request.newest();
    checkpoint_ = request.newest();
  }
  ~IdleDomain() override { stop(); }

  void begin(const std::string& domain_xml, const Warn& warn) {
    const std::vector<DomainDisk> disks = disks_of(domain_xml);
    if (disks.empty()) throw std::runtime_error(fmt::format("domain {} has no disk", name_));
    for (const DomainDisk& disk : disks) {
      if (disk.file.empty()) {
        throw std::runtime_error(fmt::format(
            "disk {} of domain {} is neither a file nor a device, and the domain is off: start it",
            disk.target, name_));
      }
    }
    make_directory();
    if (!since_.empty()) {
      const std::string cause = why_no_bitmap(disks);
      if (!cause.empty() || !serve_all(disks, true)) {
        warn(fmt::format("{}: a full backup is made",
                         cause.empty() ? "the images have no bitmap " + since_ : cause));
        stop_servers();
        since_.clear();
      }
    }
    if (since_.empty() && !serve_all(disks, false)) {
      throw std::runtime_error(
          fmt::format("qemu-nbd does not serve the disks of domain {}", name_));
    }
    incremental_ = !since_.empty();
    // What was read whole may be newer than the bitmap of that checkpoint says.
    if (!incremental_) checkpoint_.clear();
  }
  /// qemu-nbd does not keep a machine from writing to a raw disk.
  void require_unchanged() const override {
    if (virDomainIsActive(domain_.get()) == 0) return;
    throw std::runtime_error(fmt::format("domain {} was started while its disks were read", name_));
  }
  void publish() override { stop(); }

 private:
  /// A disk that stands on another image since: the bitmap of that name counts in the upper one
  /// only.
  static std::string why_no_bitmap(const std::vector<DomainDisk>& disks) {
    for (const DomainDisk& disk : disks) {
      if (disk.format == "qcow2" && has_backing_file(disk.file)) {
        return fmt::format("disk {} stands on a snapshot", disk.target);
      }
    }
    return "";
  }

  static bool has_backing_file(const std::string& path) {
    std::array<std::byte, 16> start{};  // magic, version, backing_file_offset
    const io::OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid() || ::pread(fd.get(), start.data(), start.size(), 0) != 16) {
      throw io::failure("read", path, errno != 0 ? errno : EIO);
    }
    return io::load_be<uint64_t>(start.data() + 8) != 0;
  }

  /// Other users can neither connect to the sockets in it nor put one there.
  void make_directory() {
    std::string name = "/var/tmp/varve-pull-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw io::failure("make", name, errno);
    directory_ = name;
  }

  bool serve_all(const std::vector<DomainDisk>& disks, bool with_bitmap) {
    for (const DomainDisk& disk : disks) {
      if (!serve(disk, with_bitmap && disk.format == "qcow2")) return false;
    }
    return true;
  }

  /// A server that ends with its last connection, so that a killed pull leaves none.
  bool serve(const DomainDisk& disk, bool tracked) {
    const std::string socket = fmt::format("{}/{}.sock", directory_, servers_.size());
    std::vector<std::string> words = {"qemu-nbd",  "--read-only", "--shared=20", "--format",
                                      disk.format, "--socket",    socket};
    if (tracked) words.insert(words.end(), {"--bitmap", since_});
    words.push_back(disk.file);
    // What it complains of is seen.
    const pid_t child =
        io::Spawn().no_stream(STDIN_FILENO).no_stream(STDOUT_FILENO).start("qemu-nbd", words);
    servers_.push_back({child, socket});
    for (const auto end = steady_clock::now() + kServerPatience; steady_clock::now() < end;) {
      if (greets(socket)) {
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

  /// qemu-nbd makes its socket before it knows that it can serve. A connection that ends before it
  /// has chosen an export does not end the server, as the last of those that have does.
  static bool greets(const std::string& path) {
    const io::OwnedFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return false;
    }
    std::array<char, 8> magic{};
    const timeval patience{.tv_sec = kServerPatience.count(), .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const ssize_t got = ::recv(socket.get(), magic.data(), magic.size(), MSG_WAITALL);
    return got == 8 && std::string_view(magic.data(), magic.size()) == "NBDMAGIC";
  }

  void stop_servers() noexcept {
    for (const Server& server : servers_) {
      ::kill(server.process, SIGTERM);
      ::waitpid(server.process, nullptr, 0);
      ::unlink(server.socket.c_str());
    }
    servers_.clear();
    disks_.clear();
  }

  void stop() noexcept {
    stop_servers();
    if (!directory_.empty()) ::rmdir(directory_.c_str());
    directory_.clear();
  }

  struct Server {
    pid_t process;
    std::string socket;
  };
  Connection connection_;
  Domain domain_;
  std::string directory_;
  std::vector<Server> servers_;
};

}  // namespace

std::unique_ptr<LibvirtBackup> begin_idle(Connection connection, Domain domain,
                                          const std::string& domain_xml,
                                          const LibvirtRequest& request, const Warn& warn) {
  auto backup = std::make_unique<IdleDomain>(std::move(connection), std::move(domain), request);
  backup->begin(domain_xml, warn);
  return backup;
}

}  // namespace app
