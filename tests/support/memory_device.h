// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "io/block_device.h"
#include "io/sync.h"

namespace support {

/// A block device in memory that knows, cluster by cluster, what was written and what is zero: the
/// model against which sessions are tested. Memory that was never written takes none, so disks may
/// be large.
class MemoryDevice : public io::BlockDevice {
 public:
  enum class Cluster : uint8_t { unallocated, zero, data, parent_data };

  explicit MemoryDevice(uint64_t size, uint32_t cluster_bytes = 65536)
      : cluster_bytes_(cluster_bytes),
        memory_(mapped(size), Unmap{size}),
        bytes_(memory_.get(), size),
        clusters_((size + cluster_bytes - 1) / cluster_bytes, Cluster::unallocated) {}

  uint64_t size() const override { return bytes_.size(); }
  uint32_t preferred_block_size() const override { return cluster_bytes_; }

  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    std::memcpy(into.data(), bytes_.data() + offset, into.size());
    co_return;
  }
  io::Task<void> write(uint64_t offset, io::Buffer from) override {
    std::memcpy(bytes_.data() + offset, from.data(), from.size());
    mark(offset, from.size(), Cluster::data);
    write_sizes.push_back(from.size());
    misplaced_writes += (reinterpret_cast<uintptr_t>(from.data()) - offset) % 4096 != 0;
    co_return;
  }
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override {
    if (mode == io::ZeroMode::fast_or_fail && touches_part_of_data(offset, length)) {
      throw std::system_error(ENOTSUP, std::generic_category(), "zero a part of a cluster fast");
    }
    clear(offset, length);
    mark_zero(offset, length, mode == io::ZeroMode::no_hole ? Cluster::data : Cluster::zero);
    co_return;
  }
  io::Task<void> discard(uint64_t offset, uint64_t length) override {
    return write_zeroes(offset, length, io::ZeroMode::may_unmap);
  }
  io::Task<void> flush() override {
    ++flushes;
    co_return;
  }
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override {
    std::vector<io::Extent> found;
    for (const uint64_t end = offset + length; offset < end;) {
      const uint64_t next = std::min(end, (offset / cluster_bytes_ + 1) * cluster_bytes_);
      io::Extent extent = describe(clusters_[offset / cluster_bytes_]);
      extent.length = next - offset;
      if (!found.empty() && found.back().same_kind(extent)) {
        found.back().length += extent.length;
      } else if (found.size() < count_max) {
        found.push_back(extent);
      } else {
        break;
      }
      offset = next;
    }
    co_return found;
  }

  /// Puts `fill` everywhere in the range without going through write(), as the parent's data.
  void preset(uint64_t offset, uint64_t length, uint8_t fill, Cluster kind = Cluster::parent_data) {
    std::memset(bytes_.data() + offset, fill, length);
    mark(offset, length, kind);
  }
  std::span<std::byte> bytes() { return bytes_; }

  std::vector<size_t> write_sizes;
  uint64_t misplaced_writes = 0;  ///< buffers whose address does not suit their offset
  uint64_t flushes = 0;

 private:
  static io::Extent describe(Cluster cluster) {
    switch (cluster) {
      case Cluster::unallocated:
        return {0, true, 0};
      case Cluster::zero:
        return {0, true, 1};
      case Cluster::data:
        return {0, false, 1};
      case Cluster::parent_data:
        break;
    }
    return {0, false, 2};
  }
  /// Touches only what may hold other bytes than zeroes.
  void clear(uint64_t offset, uint64_t length) {
    for (const uint64_t end = offset + length; offset < end;) {
      const uint64_t next = std::min(end, (offset / cluster_bytes_ + 1) * cluster_bytes_);
      if (!describe(clusters_[offset / cluster_bytes_]).zero) {
        std::memset(bytes_.data() + offset, 0, next - offset);
      }
      offset = next;
    }
  }
  void mark(uint64_t offset, uint64_t length, Cluster as) {
    if (length == 0) return;
    const auto first = clusters_.begin() + offset / cluster_bytes_;
    const auto last = clusters_.begin() + (offset + length - 1) / cluster_bytes_;
    std::fill(first, last + 1, as);
  }
  bool whole(uint64_t cluster, uint64_t offset, uint64_t length) const {
    const uint64_t start = cluster * cluster_bytes_;
    const uint64_t end = std::min<uint64_t>(start + cluster_bytes_, size());
    return offset <= start && offset + length >= end;
  }
  void mark_zero(uint64_t offset, uint64_t length, Cluster as) {
    for (uint64_t at = offset / cluster_bytes_; at * cluster_bytes_ < offset + length; ++at) {
      if (whole(at, offset, length)) clusters_[at] = as;
    }
  }
  bool touches_part_of_data(uint64_t offset, uint64_t length) const {
    for (uint64_t at = offset / cluster_bytes_; at * cluster_bytes_ < offset + length; ++at) {
      if (!whole(at, offset, length) && !describe(clusters_[at]).zero) return true;
    }
    return false;
  }

  struct Unmap {
    size_t size = 0;
    void operator()(std::byte* memory) const { munmap(memory, size); }
  };
  /// Not from malloc(), which may fill it (MALLOC_PERTURB_).
  static std::byte* mapped(size_t size) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
  }
  uint32_t cluster_bytes_;
  std::unique_ptr<std::byte, Unmap> memory_;
  std::span<std::byte> bytes_;
  std::vector<Cluster> clusters_;
};

/// Passes everything on to another device, after what the test wants to happen first: a failure,
/// or a wait until the test opens a gate.
class FaultyDevice : public io::BlockDevice {
 public:
  enum class Verb : uint8_t { read, write, write_zeroes, discard, flush, extents };

  FaultyDevice(io::BlockDevice& below, io::Executor& executor)
      : below_(below), gate_(executor), arrived_(executor) {
    gate_.set();
  }

  /// Every later call of `verb` fails with `error`, from the `after`-th one on.
  void fail(Verb verb, int error, uint64_t after = 0) { faults_[verb] = {error, after}; }
  void heal() { faults_.clear(); }
  /// Calls of `verb` wait until open_gate().
  void shut_gate(Verb verb) {
    gated_ = verb;
    gate_.reset();
  }
  void open_gate() { gate_.set(); }
  /// Returns once `count` calls wait at the gate.
  io::Task<void> until_waiting(uint64_t count) {
    while (waiting_ < count) co_await arrived_.wait();
  }
  uint64_t waiting() const { return waiting_; }
  uint64_t calls(Verb verb) { return calls_[verb]; }

  uint64_t size() const override { return below_.size(); }
  uint32_t preferred_block_size() const override { return below_.preferred_block_size(); }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    co_await first(Verb::read, offset, into.size());
    co_await below_.read(offset, into);
  }
  io::Task<void> write(uint64_t offset, io::Buffer from) override {
    co_await first(Verb::write, offset, from.size());
    io::Task<void> writing = below_.write(offset, std::move(from));
    co_await std::move(writing);
  }
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override {
    co_await first(Verb::write_zeroes, offset, length);
    co_await below_.write_zeroes(offset, length, mode);
  }
  io::Task<void> discard(uint64_t offset, uint64_t length) override {
    co_await first(Verb::discard, offset, length);
    co_await below_.discard(offset, length);
  }
  io::Task<void> flush() override {
    co_await first(Verb::flush, 0, 0);
    co_await below_.flush();
  }
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override {
    co_await first(Verb::extents, offset, length);
    co_return co_await below_.extents(offset, length, count_max);
  }

 private:
  struct Fault {
    int error = 0;
    uint64_t after = 0;
  };
  io::Task<void> first(Verb verb, uint64_t offset, uint64_t length) {
    ++calls_[verb];
    if (gated_ == verb && !gate_.is_set()) {
      ++waiting_;
      arrived_.wake();
      co_await gate_.wait();
      --waiting_;
    }
    const auto found = faults_.find(verb);
    if (found == faults_.end()) co_return;
    if (found->second.after > 0) {
      --found->second.after;
      co_return;
    }
    throw std::system_error(
        found->second.error, std::generic_category(),
        "touch /secret/place/disk.qcow2 @" + std::to_string(offset) + "+" + std::to_string(length));
  }

  io::BlockDevice& below_;
  std::map<Verb, Fault> faults_;
  std::map<Verb, uint64_t> calls_;
  Verb gated_ = Verb::flush;
  io::Event gate_, arrived_;
  uint64_t waiting_ = 0;
};

}  // namespace support
