// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/committer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <system_error>

#include "io/planted_bug.h"

namespace qcow {

Committer::Committer(ImageParts& parts, PartialRelief& relief)
    : clock_(parts.runtime.clock),
      name_(parts.name),
      interval_(parts.options.commit_interval),
      file_(*parts.file),
      geometry_(parts.geometry),
      allocator_(*parts.allocator),
      map_(*parts.map),
      space_(*parts.space),
      write_behind_(*parts.write_behind),
      freed_(parts.freed),
      demand_(parts.demand),
      failure_(parts.failure),
      counters_(parts.counters),
      relief_(relief),
      ended_(parts.runtime.executor) {}

Committer::~Committer() {
  assert(background_.running() == 0 && "close() or abandon() an image first");
}

io::Task<void> Committer::flush() {
  // A commit under way covers what was accepted before its snapshot, which is all there is when
  // nothing has changed since.
  const uint64_t wanted = demand_.any() ? begun_count_ + 1 : begun_count_;
  while (!failure_ && ended_count_ < wanted) {
    if (begun_count_ > ended_count_) {
      co_await ended_.wait();
    } else {
      co_await run();
    }
  }
  failure_.require_none();
}

io::Task<void> Committer::run() {
  assert(begun_count_ == ended_count_ && "one commit at a time");
  ++begun_count_;
  std::exception_ptr failure;
  try {
    co_await steps();
  } catch (...) {
    failure = std::current_exception();
  }
  ended_count_ = begun_count_;
  if (failure) failure_.fail(failure);
  ended_.wake();
}

/// The order of writes (DU4). Nothing durable ever names something that is not:
/// data and refcounts | barrier | L2 tables, refcount table | barrier, only when an L2 table is
/// new | L1 | barrier.
io::Task<void> Committer::steps() {
  co_await relief_.complete_all();
  failure_.require_none();

  // The snapshot: no suspension point up to begin_epoch().
  const bool data_written = demand_.take();
  if (!relief_.idle()) demand_.note(0);  // came meanwhile
  const size_t dropped = freed_.begin_commit();
  space_.expect_more(allocator_.expect_more(dropped) << geometry_.cluster_bits);
  const ClusterMap::Snapshot snapshot = map_.take_dirty();
  assert((dropped == 0 || !snapshot.empty()) && "what was dropped has left a table");
  allocator_.plan_blocks();
  const unsigned epoch = write_behind_.begin_epoch();

  co_await write_behind_.drain(epoch);
  failure_.require_none();
  co_await require_length();
  co_await freed_.give_back(allocator_);
  const bool new_blocks = allocator_.has_planned_blocks();
  if (!data_written && snapshot.empty() && !allocator_.dirty()) co_return;
  assert(write_behind_.drained(epoch) && "the snapshot names only data that was written");
  UNLESS_PLANTED(l2_before_refcount) co_await allocator_.write_refcounts();
  PLANTED_BUG(table_entry_before_block, co_await allocator_.write_table_entries())
  PLANTED_BUG(sync_trusted_after_failure, co_await io::sync_believing_the_second(file_))
  UNLESS_PLANTED(flush_without_sync) co_await sync_data();
  failure_.require_none();
  assert(write_behind_.drained(epoch) && "nor does a later write belong to it");
  if (!snapshot.empty() || new_blocks) {
    UNLESS_PLANTED(flush_without_l2) co_await map_.write_tables(snapshot);
    co_await allocator_.write_table_entries();
    if (!snapshot.new_tables.empty()) {
      UNLESS_PLANTED(l1_before_l2) co_await sync_data();
      co_await map_.write_l1(snapshot);
    }
    PLANTED_BUG(l2_before_refcount, co_await allocator_.write_refcounts())
    PLANTED_BUG(sync_trusted_after_failure, co_await io::sync_believing_the_second(file_))
    UNLESS_PLANTED(flush_without_sync) co_await sync_data();
  }
  map_.committed(snapshot);
  co_await allocator_.committed();
  freed_.committed();
  ++counters_.commits;
}

io::Task<void> Committer::sync_data() {
  try {
    co_await file_.sync_data();
  } catch (...) {
    failure_.lose_content();
    throw;
  }
}

io::Task<void> Committer::require_length() {
  const uint64_t bytes = co_await file_.size();
  const uint64_t least = std::max(length_seen_, space_.allocated_end());
  if (bytes < least) {
    failure_.lose_content();
    throw std::system_error(
        EIO, std::generic_category(),
        fmt::format("commit {}: the file shrank from {} to {} bytes: truncated by another program",
                    name_, least, bytes));
  }
  length_seen_ = bytes;
}

io::Task<void> Committer::commit_in_background() {
  // A commit empties the demand, also when stop() made some meanwhile.
  try {
    while (!stopping_ && !failure_) {
      co_await demand_.wait();
      if (stopping_ || failure_) co_return;
      co_await demand_.wait_until_urgent(clock_, interval_);
      if (stopping_ || failure_) co_return;
      co_await flush();
    }
  } catch (...) {
    // Without commits the promise of bounded loss is broken.
    failure_.fail(std::current_exception());
  }
}

}  // namespace qcow
