// SPDX-License-Identifier: Apache-2.0
#include "io/file_limit.h"

#include <sys/resource.h>

namespace io {

void raise_file_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));  // refused: a lack is survived too (X3)
}

}  // namespace io
