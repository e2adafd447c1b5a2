// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <libvirt/libvirt.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "app/pull/libvirt.h"

/// What the backups of running and of idle domains have in common. Only the libvirt_*.cc files
/// include it.
namespace app {

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

/// Of the last call on this thread.
std::string last_words();
int last_code();
/// `what`, and why.
std::runtime_error libvirt_failure(const std::string& what);

struct DomainDisk {
  std::string target, file, format;
  bool is_file = true;  // else a block device, or what libvirt opens over a network
};

/// The disks that hold data of the guest: no CD, no floppy, nothing that it cannot write.
std::vector<DomainDisk> disks_of(const std::string& domain_xml);

/// nbd+unix.
std::string uri_of(const std::string& socket, const std::string& export_name);

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

using Warn = std::function<void(const std::string&)>;
std::unique_ptr<LibvirtBackup> begin_running(Connection connection, Domain domain,
                                             const std::string& domain_xml,
                                             const LibvirtRequest& request, const Warn& warn);
std::unique_ptr<LibvirtBackup> begin_idle(Connection connection, Domain domain,
                                          const std::string& domain_xml,
                                          const LibvirtRequest& request, const Warn& warn);

}  // namespace app
