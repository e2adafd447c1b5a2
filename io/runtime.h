// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "io/buffer.h"
#include "io/clock.h"
#include "io/executor.h"
#include "io/file.h"

namespace io {

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;
};

/// All that one thread has of the outside world, made by a ring or by a simulation. References
/// live as long as the thread.
struct Runtime {
  Executor& executor;
  Clock& clock;
  FileSystem& files;
  BufferPool& buffers;
  Random& random;
};

}  // namespace io
