// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cassert>

#include "io/failure.h"
#include "qcow/image/empty_metadata.h"
#include "qcow/image/image.h"
#include "qcow/image/publish_header.h"
#include "qcow/image/sums_file.h"

namespace qcow {

namespace {
io::Task<void> nothing_left() { co_return; }
}  // namespace

/// Returns when every operation that entered before has left, its data write included.
io::Task<void> Image::drain() {
  const RangeQueue::Hold everything = co_await parts_.ranges.enter(
      GuestCluster{0}, std::max<uint64_t>(parts_.geometry.guest_clusters(), 1),
      RangeQueue::Access::exclusive);
}

io::Task<SealedImage> Image::seal() {
  require_open("seal", 0, parts_.geometry.virtual_size);
  state_ = State::sealing;
  admission_->close();
  std::exception_ptr failure;
  try {
    co_await finish();
    if (parts_.sums) co_await write_sums(parts_, *parts_.sums, parts_.options.sums_path);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    parts_.failure.fail(failure);
    std::rethrow_exception(failure);
  }
  state_ = State::sealed;
  SealedImage sealed{counters(), parts_.allocator->end_bytes()};
  co_return sealed;
}

void Image::release_locks() {
  if (state_ != State::sealed) return;
  parts_.lock = ImageLock();
  if (parts_.parents) parts_.parents->release_locks();
}

io::Task<void> Image::close() {
  if (state_ == State::closed) co_return;
  const bool sealed = state_ == State::sealed;
  close_doors();
  std::exception_ptr failure;
  try {
    if (!sealed) co_await finish();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) parts_.failure.fail(failure);
  io::Task<void> rest = take_rest();
  co_await std::move(rest);
  if (failure) std::rethrow_exception(failure);
}

io::Task<void> Image::abandon() {
  if (state_ == State::closed) return nothing_left();
  close_doors();
  std::exception_ptr cause;
  try {
    cause = std::make_exception_ptr(io::failure("use", parts_.name, ECANCELED));
  } catch (...) {
    cause = std::current_exception();
  }
  parts_.failure.fail(std::move(cause));
  return take_rest();
}

void Image::close_doors() {
  state_ = State::closed;
  admission_->close();
  parts_.failure.close();
}

io::Task<void> Image::take_rest() { return *std::exchange(rest_, std::nullopt); }

/// Needs no memory and does not fail: nothing may be left that refers to the image.
io::Task<void> Image::quiesce(io::Task<void> written, io::Task<void> allocated) {
  committer_->wake();  // whoever waits for room finds that there will be none
  relief_->wake();
  co_await parts_.ranges.empty();
  co_await committer_->stop();
  co_await std::move(written);
  co_await std::move(allocated);
}

/// Everything durable, nothing leaked, the file as long as its clusters.
io::Task<void> Image::finish() {
  co_await drain();
  co_await committer_->stop();
  parts_.failure.require_none();
  co_await committer_->flush();
  assert(parts_.partials->empty() && parts_.write_behind->idle() && !parts_.map->dirty());
  co_await committer_->require_length();
  // Every durable mapping is without the clusters that were zeroed or replaced.
  co_await parts_.freed.give_back_all(*parts_.allocator);
  if (parts_.allocator->dirty()) {
    co_await parts_.allocator->write_refcounts();
    co_await committer_->sync_data();
  }
  co_await parts_.allocator->lower_end();
  const bool holes_filled = parts_.allocator->ready_clusters() > 0;
  if ((parts_.freed.gaps() || holes_filled) && parts_.header.record) co_await punch_unowned();
  co_await parts_.space->stop();
  const uint64_t length = parts_.allocator->end_bytes();
  const uint64_t file_bytes = co_await parts_.file->size();
  if (file_bytes != length) co_await parts_.file->truncate(length);
  if (state_ == State::sealing) co_await give_back_empty_metadata(length);
  co_await committer_->sync_data();
}

/// Only of an image that is being sealed: before that, the space is reserved for later entries.
io::Task<void> Image::give_back_empty_metadata(uint64_t file_bytes) {
  const Geometry& geometry = parts_.geometry;
  std::vector<HostOffset> clusters = parts_.map->tables();
  const auto add = [&](HostOffset first, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      clusters.push_back({first.bytes + (i << geometry.cluster_bits)});
    }
  };
  const Refcounts& refcounts = parts_.allocator->refcounts();
  add(HostOffset{0}, 1);
  add(refcounts.table_offset(), refcounts.table_clusters());
  add(parts_.header.l1_table, geometry.l1_clusters());
  for (uint64_t block = 0; refcounts.has_block(block); ++block) {
    add(refcounts.block_offset(block), 1);
  }
  if (!is_mostly_metadata(clusters.size() << geometry.cluster_bits, file_bytes)) co_return;
  co_await punch_empty_metadata(*parts_.file, geometry, std::move(clusters));
}

io::Task<void> Image::punch_unowned() {
  constexpr size_t kSpansAtOnce = 1024;
  for (HostCluster from;;) {
    const std::vector<Allocator::Span> spans =
        co_await parts_.allocator->unowned(from, kSpansAtOnce);
    if (spans.empty()) co_return;
    for (const Allocator::Span& span : spans) {
      const uint64_t at = parts_.geometry.start_of(span.first).bytes;
      const bool done =
          co_await parts_.file->punch_hole(at, span.count << parts_.geometry.cluster_bits);
      if (!done) co_return;  // the file system cannot; the clusters just take space
    }
    from = spans.back().end();
  }
}

io::Task<void> Image::publish_header(Sha256 manifest_hash, uint64_t publish_time) {
  if (state_ != State::sealed) throw io::failure("publish", parts_.name, EINVAL);
  const Publication publication{manifest_hash, publish_time};
  parts_.header =
      co_await qcow::publish_header(*parts_.file, parts_.name, parts_.header, publication);
  // From here on it is a restore point: others may read it, nobody may write it (LK2).
  parts_.lock.become_reader();
}

}  // namespace qcow
