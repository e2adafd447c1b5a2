// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "app/restore/progress.h"
#include "app/tls_files.h"
#include "io/block_device.h"
#include "io/ring.h"
#include "io/runtime.h"

namespace app {

/// What decides how a target is opened.
struct TargetRequest {
  std::string target;       ///< as given: a path or an NBD URI
  std::string source_name;  ///< the point's export name: a restore is resumed from the same only
  uint64_t size = 0;        ///< of the disk, bytes
  bool force = false, resume = false;
  bool in_place = false;     ///< it holds an older point, of which most stays
  uint32_t connections = 1;  ///< to an NBD server
  TlsClientFiles tls;        ///< of nbds
};

/// Where a restore goes. Files are written beside their name and get it at the end. How far a
/// restore came is recorded, for --resume. Belongs to the ring's thread.
class RestoreTarget {
 public:
  virtual ~RestoreTarget() = default;

  /// Throws TargetRefused (exit status 11), or what failed.
  static io::Task<std::unique_ptr<RestoreTarget>> open(io::Ring& ring, io::Runtime runtime,
                                                       TargetRequest request);

  /// Several ways to the same bytes, at least one.
  virtual std::vector<io::BlockDevice*> devices() = 0;
  /// Nothing has been written to it: it reads as zeroes.
  virtual bool is_zero() const { return false; }
  /// Bytes that an earlier restore has left there.
  virtual uint64_t resumed_at() const { return 0; }
  /// Everything before `done` is there: makes it durable and says so, for a later --resume.
  virtual io::Task<void> keep(uint64_t done) = 0;
  /// All is there and durable: the target gets its name.
  virtual io::Task<void> finish() = 0;
  /// Ends what is open, after a failure too. Never throws.
  virtual io::Task<void> close() = 0;
};

}  // namespace app
