// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/sim_file.h"

#include <algorithm>
#include <cerrno>

#include "io/failure.h"
#include "io/planted_bug.h"

namespace crash {

namespace {
constexpr uint64_t kPage = 4096;
constexpr uint64_t kTurnsToLand = 8;  // about, for a killed process's writes
}  // namespace

SimFile::SimFile(Files& files, std::string path, FileId id)
    : files_(files), process_(files.process_), path_(std::move(path)), id_(id) {
  files_.open_.insert(this);
}

SimFile::~SimFile() {
  files_.open_.erase(this);
  files_.give_back_locks(this);
}

SimFile::Flight::~Flight() {
  if (--file.in_flight_ == 0 && file.killed()) file.files_.give_back_locks(&file);
}

void SimFile::require_alive(const char* verb) const {
  if (killed()) throw io::failure(verb, path_, ESHUTDOWN);
}

bool SimFile::is_direct(uint64_t offset, const void* address, uint64_t length) const {
  const auto bits = offset | reinterpret_cast<uintptr_t>(address) | length;
  return !cached_only_ && bits % kSector == 0;
}

io::Task<void> SimFile::read(uint64_t offset, std::span<std::byte> into) {
  require_alive("read");
  co_await files_.scheduler_.turn(Turn::read);
  require_alive("read");
  if (files_.faults.strikes(Call::read, path_)) {
    throw io::failure("read", path_, offset, into.size(), files_.faults.error);
  }
  const auto& bad = files_.unreadable;
  if (bad && bad->first == id_ && bad->second < offset + into.size() &&
      offset < bad->second + kSector) {
    throw io::failure("read", path_, offset, into.size(), EIO);
  }
  files_.disk_.read(id_, offset, into);
}

/// What a killed process had in flight is in no hurry.
io::Task<void> SimFile::wait_to_land(Turn turn) {
  do {
    co_await files_.scheduler_.turn(turn);
  } while (killed() && !files_.scheduler_.rng().one_in(kTurnsToLand));
}

io::Task<void> SimFile::write(uint64_t offset, std::span<const std::byte> from) {
  return write_bytes(offset, from, is_direct(offset, from.data(), from.size()));
}

io::Task<void> SimFile::write_gathered(uint64_t offset, std::span<const iovec> pieces) {
  Bytes all;
  bool direct = true;
  for (const iovec& piece : pieces) {
    const auto* const from = static_cast<const std::byte*>(piece.iov_base);
    all.insert(all.end(), from, from + piece.iov_len);
    direct = direct && is_direct(offset, piece.iov_base, piece.iov_len);
  }
  co_await write_bytes(offset, all, direct);
}

io::Task<void> SimFile::write_bytes(uint64_t offset, std::span<const std::byte> from, bool direct) {
  require_alive("write");
  files_.require_writable("write", path_);
  const Flight flight(*this);
  const uint64_t operation = files_.disk_.begin_write(id_, offset, from);
  if (direct) {
    files_.direct_writes_[operation] = {id_, offset / kPage,
                                        (offset + from.size() - 1) / kPage + 1};
  }
  co_await wait_to_land(Turn::write);
  note_pages(operation, offset, from.size(), direct);
  if (!killed() && files_.faults.strikes(Call::write, path_)) {
    files_.disk_.failed(operation);
    throw io::failure("write", path_, offset, from.size(), files_.faults.error);
  }
  land(operation, offset, from);
}

/// A direct write ends by dropping the pages it has passed by. One that was made dirty meanwhile
/// cannot be dropped: the kernel says so at the next sync.
void SimFile::note_pages(uint64_t operation, uint64_t offset, uint64_t length, bool direct) {
  if (direct) {
    const auto own = files_.direct_writes_.find(operation);
    if (own->second.page_dirtied) files_.stale_.insert(id_);
    files_.direct_writes_.erase(own);
    return;
  }
  for (auto& [other, write] : files_.direct_writes_) {
    if (write.file != id_) continue;
    const bool meets =
        write.first_page * kPage < offset + length && offset < write.end_page * kPage;
    write.page_dirtied |= meets;
  }
}

void SimFile::land(uint64_t operation, uint64_t offset, std::span<const std::byte> from) {
  if (killed()) {
    files_.disk_.end_write_late(operation, id_, offset, from);
  } else {
    files_.disk_.end_write(operation, id_, offset, from);
  }
}

io::Task<void> SimFile::sync_data() {
  require_alive("sync");
  const uint64_t operation = files_.disk_.begin_sync(id_);
  co_await files_.scheduler_.turn(Turn::sync);
  require_alive("sync");  // whether it was done in time is not known to anybody
  const bool stale = files_.stale_.erase(id_) > 0;
  if (stale || files_.faults.strikes(Call::sync, path_)) {
    files_.disk_.sync_failed(operation);
    throw io::failure("sync", path_, stale ? EIO : files_.faults.error);
  }
  files_.disk_.done(operation);
}

io::Task<uint64_t> SimFile::size() {
  require_alive("size");
  co_await files_.scheduler_.turn(Turn::read);
  require_alive("size");
  co_return files_.disk_.size(id_);
}

io::Task<void> SimFile::truncate(uint64_t size) {
  require_alive("truncate");
  files_.require_writable("truncate", path_);
  const Flight flight(*this);
  const uint64_t operation = files_.disk_.begin_resize(id_, size, false);
  co_await wait_to_land(Turn::write);
  if (!killed() && files_.faults.strikes(Call::truncate, path_)) {
    files_.disk_.failed(operation);
    throw io::failure("truncate", path_, files_.faults.error);
  }
  files_.disk_.end_resize(operation, id_, size);
}

io::Task<bool> SimFile::allocate(uint64_t offset, uint64_t length) {
  require_alive("allocate");
  const Flight flight(*this);
  co_await files_.scheduler_.turn(Turn::write);
  if (!files_.faults.allocate_works || killed()) co_return false;
  const uint64_t size = std::max(files_.disk_.size(id_), offset + length);
  const uint64_t operation = files_.disk_.begin_resize(id_, size, true);
  co_await wait_to_land(Turn::write);
  if (!killed() && files_.faults.strikes(Call::allocate, path_)) {
    files_.disk_.failed(operation);
    throw io::failure("allocate", path_, offset, length, files_.faults.error);
  }
  // Writes may have made it longer meanwhile.
  files_.disk_.end_resize(operation, id_, std::max(files_.disk_.size(id_), size));
  co_return true;
}

io::Task<bool> SimFile::punch_hole(uint64_t offset, uint64_t length) {
  require_alive("punch");
  if (!files_.faults.punch_works) co_return false;
  const uint64_t size = files_.disk_.size(id_);
  if (offset >= size) co_return true;
  const Flight flight(*this);
  const Bytes zeroes(std::min(length, size - offset));
  const uint64_t operation = files_.disk_.begin_write(id_, offset, zeroes);
  co_await wait_to_land(Turn::write);
  if (!killed() && files_.faults.strikes(Call::punch, path_)) {
    files_.disk_.failed(operation);
    throw io::failure("punch", path_, offset, length, files_.faults.error);
  }
  land(operation, offset, zeroes);
  co_return true;
}

bool SimFile::lock_byte_shared(uint64_t at) {
  files_.locks_[{id_, at}].insert(this);
  return true;
}

void SimFile::unlock_byte(uint64_t at) { files_.locks_[{id_, at}].erase(this); }

bool SimFile::byte_is_locked_elsewhere(uint64_t at) {
  const auto& holders = files_.locks_[{id_, at}];
  return holders.size() > holders.count(this);
}

io::Task<bool> SimFile::is_open_elsewhere() {
  co_return std::ranges::any_of(files_.open_, [this](const SimFile* other) {
    return other != this && other->id_ == id_ && !other->killed();
  });
}

}  // namespace crash
