#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/ring.h"
#include "io/runtime.h"

namespace app {

/// The target may not be written to: it is there already, or too small. Exit status 3.
class TargetRefused : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What decides how a target is opened.
struct TargetRequest {
  std::string target;       ///< as given: a path or an NBD URI
  std::string source_name;  ///< the point's export name: a restore is resumed from the same only
  uint64_t size = 0;        ///< of the disk, bytes
  bool force = false, resume = false;
  bool in_place = false;     ///< it holds an older point, of which most stays
  uint32_t connections = 1;  ///< to an NBD server
};

/// Where a restore goes. Files are written beside their name and get it at the end; how far they
/// are stands in a file beside them, for --resume. Belongs to the ring's thread.
class RestoreTarget {
 public:
  virtual ~RestoreTarget() = default;

  /// Throws TargetRefused, or what failed.
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
