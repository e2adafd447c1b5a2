// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/file_space.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <new>

#include "io/log.h"

namespace qcow {

namespace {

constexpr uint64_t kAheadMin = 1 << 20;

bool means_full(const std::system_error& failure) {
  return failure.code().value() == ENOSPC || failure.code().value() == EDQUOT;
}

}  // namespace

void FileSpace::use(uint64_t end) noexcept {
  const uint64_t step = ahead();
  if (off_ || growing_ || broken_ || end + step / 2 <= end_) return;
  const uint64_t to = std::min(end + step, bytes_max_);
  if (to <= end_) return;
  try {
    start(to, std::min(end, to));
  } catch (const std::bad_alloc&) {
    // The write extends the file by itself, and the next call tries again.
  }
}

io::Task<void> FileSpace::reserve(uint64_t end) {
  const uint64_t least = std::min(end, bytes_max_);
  bool tried = false;
  while (!off_ && least > end_) {
    if (!growing_) {
      if (tried && full_) std::rethrow_exception(full_);
      if (tried && broken_) co_return;
      start(std::min(least + ahead(), bytes_max_), least);
      tried = true;
    }
    if (growing_) co_await grown_.wait();
  }
}

void FileSpace::start(uint64_t to, uint64_t least) {
  assert(!growing_ && to > end_ && least <= to);
  io::Task<void> growth = grow(to, least);
  growing_ = true;
  growing_to_ = to;
  scope_.spawn(std::move(growth));
}

/// To the full step or, when there is no space for that, to what is needed at least.
io::Task<void> FileSpace::grow(uint64_t to, uint64_t least) {
  bool done = false;
  full_ = nullptr;
  broken_ = false;
  try {
    done = co_await try_to_grow(to);
    if (!done && full_) {
      ahead_ = std::max(ahead_ / 2, kAheadMin);
      to = least;
      if (to > end_) done = co_await try_to_grow(to);
    } else {
      ahead_ = std::min(step_, ahead_ * 2);
    }
  } catch (const std::exception& failure) {
    attempt_failed(failure);
    broken_ = true;
  }
  if (done) {
    assert(growing_ && to > end_);
    end_ = to;
    full_ = nullptr;
  } else if (!full_ && !broken_) {
    off_ = true;
  }
  growing_ = false;
  grown_.wake();
  if (on_change_) on_change_();
}

io::Task<bool> FileSpace::try_to_grow(uint64_t to) {
  full_ = nullptr;
  // A file that was cut is not to become long again before the next commit has seen it.
  const uint64_t bytes = co_await file_.size();
  if (bytes < end_) co_return false;
  try {
    co_return co_await file_.allocate(end_, to - end_);
  } catch (const std::system_error& failure) {
    if (!means_full(failure)) throw;
    full_ = std::make_exception_ptr(NoSpace(failure));
  }
  co_return false;
}

io::Task<FileSpace::Filled> FileSpace::fill(uint64_t offset, uint64_t length) {
  if (off_) co_return Filled::yes;
  try {
    const uint64_t bytes = co_await file_.size();
    if (bytes < end_) co_return Filled::unknown;
    const bool able = co_await file_.allocate(offset, length);
    if (!able) off_ = true;
    ahead_ = std::min(step_, ahead_ * 2);
    co_return Filled::yes;
  } catch (const std::system_error& failure) {
    if (!means_full(failure)) {
      attempt_failed(failure);
      co_return Filled::unknown;
    }
  }
  ahead_ = std::max(ahead_ / 2, kAheadMin);
  co_return Filled::no;
}

/// What needs the space and does not find it will say so itself.
void FileSpace::attempt_failed(const std::exception& failure) noexcept {
  if (std::exchange(told_, true)) return;
  io::log(io::LogLevel::warning, "qcow: cannot allocate space ahead, continuing without: {}",
          failure.what());
}

io::Task<void> FileSpace::stop() {
  off_ = true;
  co_await scope_.joined();
}

}  // namespace qcow
