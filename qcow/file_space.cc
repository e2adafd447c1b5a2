#include "qcow/file_space.h"

#include <algorithm>
#include <new>

namespace qcow {

void FileSpace::use(uint64_t end) noexcept {
  if (off_ || growing_ || end + step_ / 2 <= end_) return;
  const uint64_t step = share_ == nullptr ? step_ : std::min(step_, share_->step_max());
  if (step == 0 || end + step / 2 <= end_) return;
  const uint64_t to = std::min(end + step, bytes_max_);
  if (to <= end_) return;
  try {
    io::Task<void> growth = grow(to);
    growing_ = true;
    growing_to_ = to;
    scope_.spawn(std::move(growth));
  } catch (const std::bad_alloc&) {
    // The write extends the file by itself, and the next call tries again.
  }
}

io::Task<void> FileSpace::grow(uint64_t to) {
  bool done = false;
  try {
    // A file that was cut is not to become long again before the next commit has seen it.
    const uint64_t bytes = co_await file_.size();
    if (bytes >= end_) done = co_await file_.allocate(end_, to - end_);
  } catch (const std::exception&) {
    // Full, or broken: the write that needs the space will say so.
  }
  if (done) {
    end_ = to;
  } else {
    off_ = true;
  }
  growing_ = false;
  if (on_change_) on_change_();
}

io::Task<void> FileSpace::stop() {
  off_ = true;
  co_await scope_.joined();
}

}  // namespace qcow
