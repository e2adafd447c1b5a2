// SPDX-License-Identifier: Apache-2.0
#include "io/ring_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cerrno>
#include <climits>
#include <cstring>

#include "io/failure.h"
#include "io/page_cache.h"

namespace io {
namespace {

/// Smaller reads profit from the page cache's read-ahead more than from a copy less.
constexpr size_t kDirectReadBytesMin = 128 << 10;
/// The kernel transfers no more than this in one call.
constexpr size_t kTransferBytesMax = 1 << 30;

bool is_passing(int32_t result) { return result == -EINTR || result == -EAGAIN; }

uint64_t total_bytes(std::span<const iovec> pieces) {
  uint64_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  return total;
}

/// Takes `count` bytes off the front of `pieces`.
void drop_front(std::vector<iovec>& pieces, size_t count) {
  size_t whole = 0;
  while (whole < pieces.size() && count >= pieces[whole].iov_len) count -= pieces[whole++].iov_len;
  pieces.erase(pieces.begin(), pieces.begin() + static_cast<ptrdiff_t>(whole));
  if (count == 0) return;
  assert(!pieces.empty() && "no more is written than was given");
  pieces.front().iov_base = static_cast<std::byte*>(pieces.front().iov_base) + count;
  pieces.front().iov_len -= count;
}

}  // namespace

RingFile::RingFile(Ring& ring, std::string path, OwnedFd cached, OwnedFd direct,
                   uint32_t direct_alignment)
    : ring_(ring),
      path_(std::move(path)),
      cached_(std::move(cached)),
      direct_(std::move(direct)),
      direct_alignment_(direct_alignment) {
  assert(cached_.valid() && std::has_single_bit(direct_alignment));
  assert((direct_.valid() || direct_alignment == 1) && "only direct access needs alignment");
}

bool RingFile::aligned(uint64_t offset, const void* address, uint64_t length) const {
  const uint64_t mask = direct_alignment_ - 1;
  return ((offset | reinterpret_cast<uintptr_t>(address) | length) & mask) == 0;
}

int RingFile::descriptor_for_write(uint64_t offset, std::span<const iovec> pieces) const {
  if (!direct_.valid()) return cached_.get();
  const bool direct = std::all_of(pieces.begin(), pieces.end(), [&](const iovec& piece) {
    return aligned(offset, piece.iov_base, piece.iov_len);
  });
  return direct ? direct_.get() : cached_.get();
}

int RingFile::descriptor_for_read(uint64_t offset, std::span<const std::byte> into) const {
  const bool direct = direct_.valid() && into.size() >= kDirectReadBytesMin &&
                      aligned(offset, into.data(), into.size()) &&
                      !is_in_page_cache(cached_.get(), offset, into.size());
  return direct ? direct_.get() : cached_.get();
}

Task<void> RingFile::read(uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const int fd = descriptor_for_read(offset, into);
    const auto length = static_cast<unsigned>(std::min(into.size(), kTransferBytesMax));
    const int32_t result = co_await ring_.submit(
        [&](io_uring_sqe* sqe) { io_uring_prep_read(sqe, fd, into.data(), length, offset); });
    if (is_passing(result)) continue;
    if (result < 0) throw failure("read", path_, offset, into.size(), result);
    assert(static_cast<unsigned>(result) <= length);
    if (result == 0) {
      std::memset(into.data(), 0, into.size());  // past the end of the file
      break;
    }
    into = into.subspan(static_cast<size_t>(result));
    offset += static_cast<uint64_t>(result);
  }
}

Task<void> RingFile::write(uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const iovec piece{const_cast<std::byte*>(from.data()), from.size()};
    const int fd = descriptor_for_write(offset, {&piece, 1});
    const auto length = static_cast<unsigned>(std::min(from.size(), kTransferBytesMax));
    const int32_t result = co_await ring_.submit(
        [&](io_uring_sqe* sqe) { io_uring_prep_write(sqe, fd, from.data(), length, offset); });
    if (is_passing(result)) continue;
    if (result <= 0) throw failure("write", path_, offset, from.size(), result == 0 ? EIO : result);
    assert(static_cast<unsigned>(result) <= length);
    from = from.subspan(static_cast<size_t>(result));
    offset += static_cast<uint64_t>(result);
  }
}

Task<void> RingFile::write_gathered(uint64_t offset, std::span<const iovec> pieces) {
  assert(pieces.size() <= IOV_MAX);
  if (pieces.size() == 1) {
    const std::span from(static_cast<const std::byte*>(pieces[0].iov_base), pieces[0].iov_len);
    co_await write(offset, from);
    co_return;
  }
  std::vector<iovec> rest(pieces.begin(), pieces.end());
  while (!rest.empty()) {
    const int fd = descriptor_for_write(offset, rest);
    const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
      io_uring_prep_writev(sqe, fd, rest.data(), static_cast<unsigned>(rest.size()), offset);
    });
    if (is_passing(result)) continue;
    if (result <= 0) {
      throw failure("write", path_, offset, total_bytes(rest), result == 0 ? EIO : result);
    }
    drop_front(rest, static_cast<size_t>(result));
    offset += static_cast<uint64_t>(result);
  }
}

Task<void> RingFile::synchronise(unsigned flags) {
  for (;;) {
    const int32_t result = co_await ring_.submit(
        [&](io_uring_sqe* sqe) { io_uring_prep_fsync(sqe, cached_.get(), flags); });
    if (result == -EINTR) continue;
    if (result < 0) throw failure("sync", path_, result);
    co_return;
  }
}

Task<void> RingFile::sync_data() { return synchronise(IORING_FSYNC_DATASYNC); }
Task<void> RingFile::sync() { return synchronise(0); }

Task<uint64_t> RingFile::size() {
  struct stat status {};
  if (::fstat(cached_.get(), &status) != 0) throw failure("stat", path_, errno);
  co_return static_cast<uint64_t>(status.st_size);
}

Task<uint64_t> RingFile::allocated_bytes() {
  struct stat status {};
  if (::fstat(cached_.get(), &status) != 0) throw failure("stat", path_, errno);
  co_return static_cast<uint64_t>(status.st_blocks) * 512;
}

Task<void> RingFile::truncate(uint64_t size) {
  const auto call = [this, size] {
    if (::ftruncate(cached_.get(), static_cast<off_t>(size)) != 0) {
      throw failure("truncate", path_, size, 0, errno);
    }
  };
  co_await ring_.run_blocking(call);
}

Task<bool> RingFile::change_allocation(int mode, const char* verb, uint64_t offset,
                                       uint64_t length) {
  for (;;) {
    const int32_t result = co_await ring_.submit([&](io_uring_sqe* sqe) {
      io_uring_prep_fallocate(sqe, cached_.get(), mode, static_cast<off_t>(offset),
                              static_cast<off_t>(length));
    });
    if (is_passing(result)) continue;
    if (result == -EOPNOTSUPP || result == -ENOSYS) co_return false;
    if (result < 0) throw failure(verb, path_, offset, length, result);
    co_return true;
  }
}

Task<bool> RingFile::allocate(uint64_t offset, uint64_t length) {
  return change_allocation(0, "allocate", offset, length);
}

Task<bool> RingFile::punch_hole(uint64_t offset, uint64_t length) {
  return change_allocation(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "punch", offset, length);
}

Task<void> RingFile::forget_cached() {
  // A length of 0 is the whole file. What cannot be dropped is read as any other program reads it.
  co_await ring_.submit([&](io_uring_sqe* sqe) {
    io_uring_prep_fadvise(sqe, cached_.get(), 0, 0, POSIX_FADV_DONTNEED);
  });
}

}  // namespace io
