// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "io/clock.h"
#include "io/file.h"
#include "io/runtime.h"
#include "io/task.h"

namespace qcow {

enum class LockRole : uint8_t {
  writer,  ///< the one who fills an image (LK1)
  reader,  ///< of a restore point being served, or of a parent (LK2)
};

/// How long a lock that conflicts is asked for again.
struct LockPatience {
  /// Its holder has the file open, as far as can be seen. It may be about to end.
  io::Duration with_the_living = std::chrono::seconds(1);
  /// Its holder was killed, and the storage is still busy with what it wrote last.
  io::Duration with_the_dead = std::chrono::seconds(30);
};

/// The open-file-description locks that qemu takes on an image, so that varve and qemu see each
/// other (LK1–LK3).
///
/// Byte 100 + n: "holds permission n"; 200 + n: "does not share permission n". All of them are
/// shared locks on one byte: what conflicts is found by testing, after one's own bytes are held.
/// Given back by the destructor; the file outlives the lock.
class ImageLock {
 public:
  ImageLock() = default;
  /// Throws FormatError (RF21) when somebody's bytes conflict; nothing stays held then.
  static ImageLock acquire(io::File& file, LockRole role, std::string_view image_name);

  /// The same with patience. A killed process keeps its locks until its last write under way has
  /// ended (io::File::lock_byte_shared), which takes as long as the storage takes: whoever gets the
  /// lock reads tables that no earlier write changes any more.
  static io::Task<ImageLock> acquire_patiently(io::Runtime runtime, io::File& file, LockRole role,
                                               std::string image_name, LockPatience patience = {});

  ImageLock(ImageLock&& other) noexcept;
  ImageLock& operator=(ImageLock&& other) noexcept;
  ~ImageLock();

  /// From writer to reader, at publish. A reader's bytes are among a writer's, so there is no
  /// moment without a lock.
  void become_reader();

  /// False when the file system knows no such locks: a warning is due, not a failure.
  bool supported() const { return supported_; }
  bool held() const { return file_ != nullptr; }

 private:
  void release() noexcept;

  io::File* file_ = nullptr;
  LockRole role_ = LockRole::reader;
  bool supported_ = true;
};

}  // namespace qcow
