#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "io/planted_bug.h"
#include "qcow/image/image_parts.h"

namespace qcow {

io::Task<void> Image::flush() {
  if (failure_) std::rethrow_exception(failure_);
  if (state_ == State::sealed || state_ == State::closed) co_return;
  PLANTED_BUG(flush_while_queued, if (!write_behind_->idle()) co_return )
  co_await commit();
}

/// Returns when everything accepted before the call is durable. Callers that come while a commit
/// runs share the next one (DU7).
io::Task<void> Image::commit() {
  // A commit under way covers what was accepted before its snapshot, which is all there is when
  // nothing has changed since.
  const uint64_t wanted = changed_.is_set() ? commits_begun_ + 1 : commits_begun_;
  while (!failure_ && commits_ended_ < wanted) {
    if (committing_) {
      co_await commit_ended_.wait();
    } else {
      co_await run_commit();
    }
  }
  if (failure_) std::rethrow_exception(failure_);
}

io::Task<void> Image::run_commit() {
  committing_ = true;
  ++commits_begun_;
  std::exception_ptr failure;
  try {
    co_await commit_steps();
  } catch (...) {
    failure = std::current_exception();
  }
  committing_ = false;
  commits_ended_ = commits_begun_;
  if (failure) fail(failure);
  commit_ended_.set();
  commit_ended_.reset();
}

/// The order of writes (DU4). Nothing durable ever names something that is not:
/// data and refcounts | barrier | L2 tables, refcount table | barrier, only when an L2 table is
/// new | L1 | barrier.
io::Task<void> Image::commit_steps() {
  std::vector<uint64_t> partial = partials_->all();
  co_await complete_partials(std::move(partial));
  if (failure_) std::rethrow_exception(failure_);

  // The snapshot: no suspension point up to begin_epoch().
  changed_.reset();
  urgent_.reset();
  bytes_since_commit_ = 0;
  if (!partials_->empty()) changed_.set();  // came meanwhile
  release_retained_over_bound();
  std::vector<uint64_t> dropped = std::exchange(dropped_, {});
  space_->expect_more(allocator_->expect_more(dropped.size()) << geometry_.cluster_bits);
  const bool data_written = std::exchange(data_written_, false);
  const ClusterMap::Snapshot snapshot = map_->take_dirty();
  allocator_->plan_blocks();
  const unsigned epoch = write_behind_->begin_epoch();

  co_await write_behind_->drain(epoch);
  if (failure_) std::rethrow_exception(failure_);
  co_await require_length();
  co_await allocator_->give_back(releasable_);
  const bool new_blocks = allocator_->has_planned_blocks();
  if (!data_written && snapshot.empty() && !allocator_->dirty()) co_return;
  UNLESS_PLANTED(l2_before_refcount) co_await allocator_->write_refcounts();
  PLANTED_BUG(table_entry_before_block, co_await allocator_->write_table_entries())
  PLANTED_BUG(sync_trusted_after_failure, co_await io::sync_believing_the_second(*file_))
  UNLESS_PLANTED(flush_without_sync) co_await sync_data();
  if (failure_) std::rethrow_exception(failure_);
  if (!snapshot.empty() || new_blocks) {
    UNLESS_PLANTED(flush_without_l2) co_await map_->write_tables(snapshot);
    co_await allocator_->write_table_entries();
    if (!snapshot.new_tables.empty()) {
      UNLESS_PLANTED(l1_before_l2) co_await sync_data();
      co_await map_->write_l1(snapshot);
    }
    PLANTED_BUG(l2_before_refcount, co_await allocator_->write_refcounts())
    PLANTED_BUG(sync_trusted_after_failure, co_await io::sync_believing_the_second(*file_))
    UNLESS_PLANTED(flush_without_sync) co_await sync_data();
  }
  map_->committed(snapshot);
  co_await allocator_->committed();
  if (!dropped.empty()) gave_back_ = true;
  releasable_.insert(releasable_.end(), dropped.begin(), dropped.end());
  ++counters_.commits;
}

/// What a sync did not write may be gone from the page cache too, so nothing that is read from the
/// file afterwards can be trusted.
io::Task<void> Image::sync_data() {
  try {
    co_await file_->sync_data();
  } catch (...) {
    content_unknown_ = true;
    throw;
  }
}

/// A file never becomes shorter while it is written. One that did was truncated by another program,
/// and writing on would hide that: its lost clusters would read as zeroes.
io::Task<void> Image::require_length() {
  const uint64_t bytes = co_await file_->size();
  const uint64_t least = std::max(length_seen_, space_->allocated_end());
  if (bytes < least) {
    content_unknown_ = true;
    throw std::system_error(
        EIO, std::generic_category(),
        fmt::format("commit {}: the file shrank from {} to {} bytes: truncated by another program",
                    name_, least, bytes));
  }
  length_seen_ = bytes;
}

/// Zeroed clusters whose numbers take too much memory are given back instead of kept for their
/// guest cluster. Their zero mapping is in the coming snapshot or durable already.
void Image::release_retained_over_bound() {
  if (!retained_.over_bound()) return;
  for (const RetainedClusters::Run& run : retained_.take_shortest(RetainedClusters::kRunsMax / 2)) {
    for (uint64_t i = 0; i < run.count; ++i) dropped_.push_back(run.host + i);
  }
}

io::Task<void> Image::commit_in_background() {
  // A commit shuts changed_, also when stop_background() opened it meanwhile.
  try {
    while (!stopping_ && !failure_) {
      co_await changed_.wait();
      if (stopping_ || failure_) co_return;
      co_await io::wait_for(runtime_.executor, runtime_.clock, urgent_, options_.commit_interval);
      if (stopping_ || failure_) co_return;
      co_await commit();
    }
  } catch (...) {
    fail(std::current_exception());  // without commits the promise of bounded loss is broken
  }
}

io::Task<void> Image::stop_background() {
  stopping_ = true;
  changed_.set();
  urgent_.set();
  co_await background_.joined();
}

}  // namespace qcow
