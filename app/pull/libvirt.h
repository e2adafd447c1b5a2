// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace app {

/// What a pull from libvirt begins with.
struct LibvirtRequest {
  std::string newest() const { return checkpoints.empty() ? "" : checkpoints.front(); }

  std::string domain;   ///< its name
  std::string connect;  ///< libvirt URI; "": libvirt's default
  /// The checkpoints that the VM's points are of, the newest first; "": a point of none. Only the
  /// newest point's is of use, the others are removed where they are still there.
  std::vector<std::string> checkpoints;
  bool full = false;   ///< everything is wanted, whatever there is
  bool freeze = true;  ///< the guest's file systems, where its agent answers
  /// The disks are only read: no checkpoint is made, and none may be removed by publish().
  bool only_read = false;
};

/// One disk of a domain, readable over NBD as it was at the instant of the backup.
struct LibvirtDisk {
  std::string target;  ///< "vda"
  std::string uri;     ///< nbd+unix
  std::string bitmap;  ///< of what has changed since the request's checkpoint; "": not known
};

/// A pull-mode backup of all disks of a domain at one instant, with a checkpoint for the next one.
/// A domain that is off is read through qemu-nbd instead, and gets no checkpoint.
///
/// Whatever ends it before publish() leaves the domain as it was: the job ends and the new
/// checkpoint is removed. Every call blocks and throws std::runtime_error with libvirt's words.
/// Spec: libvirt, "Efficient live full/incremental backup"; formatbackup, formatcheckpoint.
class LibvirtBackup {
 public:
  virtual ~LibvirtBackup() = default;

  /// `warn` hears why an incremental became a full, and what could not be frozen.
  static std::unique_ptr<LibvirtBackup> begin(const LibvirtRequest& request,
                                              const std::function<void(const std::string&)>& warn);

  virtual const std::string& domain_name() const = 0;
  virtual const std::vector<LibvirtDisk>& disks() const = 0;
  /// The state that is read, for the next request's `since`; "": none can stand on it.
  virtual const std::string& checkpoint() const = 0;
  /// The disks' bitmaps count from the request's checkpoint, `since()`.
  virtual bool incremental() const = 0;
  virtual const std::string& since() const = 0;
  /// Throws when the domain has been started although it was read while it was off.
  virtual void require_unchanged() const = 0;
  /// The point is there: the job ends, and the checkpoints of the points before it go, which
  /// nothing needs any more.
  virtual void publish() = 0;
};

}  // namespace app
