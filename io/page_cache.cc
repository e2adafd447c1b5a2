// SPDX-License-Identifier: Apache-2.0
#include "io/page_cache.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace io {
namespace {

#ifndef SYS_cachestat
constexpr long SYS_cachestat = 451;  // of every architecture; glibc 2.36 does not know it yet
#endif

// Layouts of Linux's include/uapi/linux/mman.h, in host byte order.
struct CacheRange {
  uint64_t offset, length;
};
struct CacheCounts {
  uint64_t cached_pages, dirty, under_writeback, evicted, recently_evicted;
};

}  // namespace

bool is_in_page_cache(int fd, uint64_t offset, uint64_t length) {
  static const uint64_t page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  CacheRange range{offset, length};
  CacheCounts counts{};
  if (length == 0 || ::syscall(SYS_cachestat, fd, &range, &counts, 0u) != 0) return false;
  const uint64_t pages = (offset + length - 1) / page_bytes - offset / page_bytes + 1;
  return counts.cached_pages >= pages;
}

}  // namespace io
