#include <algorithm>

#include "io/failure.h"
#include "qcow/image/image_parts.h"
#include "qcow/image/publish_header.h"

namespace qcow {

namespace {
io::Task<void> nothing_left() { co_return; }
}  // namespace

/// Returns when every operation that entered before has left, its data write included.
io::Task<void> Image::drain() {
  const RangeQueue::Hold everything = co_await ranges_.enter(
      0, std::max<uint64_t>(geometry_.guest_clusters(), 1), RangeQueue::Access::exclusive);
}

io::Task<SealedImage> Image::seal() {
  require_open("seal", 0, geometry_.virtual_size);
  state_ = State::sealing;
  std::exception_ptr failure;
  try {
    co_await finish();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    fail(failure);
    std::rethrow_exception(failure);
  }
  state_ = State::sealed;
  SealedImage sealed{counters(), geometry_.host_offset(allocator_->end_cluster()).bytes};
  co_return sealed;
}

void Image::release_locks() {
  if (state_ != State::sealed) return;
  lock_ = ImageLock();
  if (parents_) parents_->release_locks();
}

io::Task<void> Image::close() {
  if (state_ == State::closed) co_return;
  const bool sealed = state_ == State::sealed;
  state_ = State::closed;
  std::exception_ptr failure;
  try {
    if (!sealed) co_await finish();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) fail(failure);
  io::Task<void> rest = take_rest();
  co_await std::move(rest);
  if (failure) std::rethrow_exception(failure);
}

io::Task<void> Image::abandon() {
  if (state_ == State::closed) return nothing_left();
  state_ = State::closed;
  std::exception_ptr cause;
  try {
    cause = std::make_exception_ptr(io::failure("use", name_, ECANCELED));
  } catch (...) {
    cause = std::current_exception();
  }
  fail(std::move(cause));
  return take_rest();
}

io::Task<void> Image::take_rest() { return *std::exchange(rest_, std::nullopt); }

/// Needs no memory and does not fail: nothing may be left that refers to the image.
io::Task<void> Image::quiesce(io::Task<void> written, io::Task<void> allocated) {
  commit_ended_.set();  // whoever waits for room finds that there will be none
  commit_ended_.reset();
  relieved_.set();
  relieved_.reset();
  co_await ranges_.empty();
  stopping_ = true;
  changed_.set();
  urgent_.set();
  co_await background_.joined();
  co_await std::move(written);
  co_await std::move(allocated);
}

/// Everything durable, nothing leaked, the file as long as its clusters.
io::Task<void> Image::finish() {
  co_await drain();
  co_await stop_background();
  if (failure_) std::rethrow_exception(failure_);
  co_await commit();
  co_await require_length();
  co_await give_back_unowned();
  co_await allocator_->lower_end();
  const bool holes_filled = allocator_->ready_clusters() > 0;
  if ((gave_back_ || holes_filled) && header_.record) co_await punch_unowned();
  co_await space_->stop();
  const uint64_t length = geometry_.host_offset(allocator_->end_cluster()).bytes;
  const uint64_t file_bytes = co_await file_->size();
  if (file_bytes != length) co_await file_->truncate(length);
  co_await sync_data();
}

/// Every durable mapping is without the clusters that were zeroed or replaced, so their refcounts
/// may go down now (LT12).
io::Task<void> Image::give_back_unowned() {
  releasable_.insert(releasable_.end(), dropped_.begin(), dropped_.end());
  dropped_.clear();
  if (!releasable_.empty()) gave_back_ = true;
  co_await allocator_->give_back(releasable_);
  constexpr uint64_t kClustersAtOnce = 64 << 10;
  for (const RetainedClusters::Run& run : retained_.take_all()) {
    gave_back_ = true;
    for (uint64_t at = 0; at < run.count; at += kClustersAtOnce) {
      std::vector<uint64_t> clusters(std::min(kClustersAtOnce, run.count - at));
      for (uint64_t i = 0; i < clusters.size(); ++i) clusters[i] = run.host + at + i;
      co_await allocator_->give_back(clusters);
    }
  }
  if (!allocator_->dirty()) co_return;
  co_await allocator_->write_refcounts();
  co_await sync_data();
}

io::Task<void> Image::punch_unowned() {
  constexpr size_t kSpansAtOnce = 1024;
  for (uint64_t from = 0;;) {
    const std::vector<Allocator::Span> spans = co_await allocator_->unowned(from, kSpansAtOnce);
    if (spans.empty()) co_return;
    for (const Allocator::Span& span : spans) {
      const uint64_t at = geometry_.host_offset(span.first).bytes;
      const bool done = co_await file_->punch_hole(at, span.count << geometry_.cluster_bits);
      if (!done) co_return;  // the file system cannot; the clusters just take space
    }
    from = spans.back().first + spans.back().count;
  }
}

io::Task<void> Image::publish_header(Sha256 manifest_hash, uint64_t publish_time) {
  if (state_ != State::sealed) throw io::failure("publish", name_, EINVAL);
  const Publication publication{manifest_hash, publish_time};
  header_ = co_await qcow::publish_header(*file_, name_, header_, publication);
  // From here on it is a restore point: others may read it, nobody may write it (LK2).
  lock_.become_reader();
}

}  // namespace qcow
