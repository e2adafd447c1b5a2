// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/locks.h"

#include <fmt/format.h>

#include <array>
#include <span>
#include <system_error>
#include <utility>
#include <variant>

#include "qcow/format/format_error.h"

namespace qcow {

namespace {

constexpr io::Duration kPause = std::chrono::milliseconds(20);
constexpr io::Duration kPauseBetweenLooks = std::chrono::milliseconds(200);

constexpr uint64_t kHolds = 100;
constexpr uint64_t kDoesNotShare = 200;
constexpr uint64_t kConsistentRead = 0, kWrite = 1, kResize = 3;

constexpr std::array<uint64_t, 3> kReaderBytes = {kHolds + kConsistentRead, kDoesNotShare + kWrite,
                                                  kDoesNotShare + kResize};
constexpr std::array<uint64_t, 5> kWriterBytes = {kHolds + kConsistentRead, kHolds + kWrite,
                                                  kHolds + kResize, kDoesNotShare + kWrite,
                                                  kDoesNotShare + kResize};

std::span<const uint64_t> bytes_of(LockRole role) {
  if (role == LockRole::writer) return kWriterBytes;
  return kReaderBytes;
}

/// The byte on which somebody contradicts "holds permission n" or "does not share permission n".
uint64_t contradicting(uint64_t byte) {
  return byte >= kDoesNotShare ? byte - kDoesNotShare + kHolds : byte - kHolds + kDoesNotShare;
}

bool means_unsupported(const std::system_error& error) {
  const int number = error.code().value();
  return number == ENOTSUP || number == EOPNOTSUPP || number == ENOLCK || number == ENOSYS ||
         number == EINVAL;
}

[[noreturn]] void refuse(std::string_view image_name, uint64_t byte) {
  throw FormatError(image_name, fmt::format("in use by another process (lock byte {})", byte));
}

}  // namespace

ImageLock ImageLock::acquire(io::File& file, LockRole role, std::string_view image_name) {
  ImageLock lock;
  lock.file_ = &file;
  lock.role_ = role;
  try {
    for (const uint64_t byte : bytes_of(role)) {
      if (!file.lock_byte_shared(byte)) refuse(image_name, byte);
    }
    for (const uint64_t byte : bytes_of(role)) {
      const uint64_t other = contradicting(byte);
      if (file.byte_is_locked_elsewhere(other)) refuse(image_name, other);
    }
  } catch (const std::system_error& error) {
    if (!means_unsupported(error)) throw;
    lock.release();
    lock.supported_ = false;
  }
  return lock;
}

namespace {

/// The lock, or why it cannot be had now.
std::variant<ImageLock, FormatError> try_acquire(io::File& file, LockRole role,
                                                 std::string_view image_name) {
  try {
    return ImageLock::acquire(file, role, image_name);
  } catch (const FormatError& refusal) {
    return refusal;
  }
}

FormatError still_locked(std::string_view image_name, io::Duration patience) {
  return FormatError(
      image_name,
      fmt::format("still locked after {} s, although no process that can be seen has it open: the "
                  "last writes of a killed process have not ended (is the storage stuck?), or its "
                  "user is of another container, host or account",
                  std::chrono::duration_cast<std::chrono::seconds>(patience).count()));
}

}  // namespace

io::Task<ImageLock> ImageLock::acquire_patiently(io::Runtime runtime, io::File& file, LockRole role,
                                                 std::string image_name, LockPatience patience) {
  const io::SteadyTime begin = runtime.clock.now();
  for (;;) {
    std::variant<ImageLock, FormatError> result = try_acquire(file, role, image_name);
    if (auto* const lock = std::get_if<ImageLock>(&result)) co_return std::move(*lock);
    const io::Duration waited = runtime.clock.now() - begin;
    if (waited >= patience.with_the_dead) throw still_locked(image_name, patience.with_the_dead);
    const bool look = waited >= patience.with_the_living;
    const bool alive = look && co_await file.is_open_elsewhere();
    if (alive) throw std::get<FormatError>(result);
    co_await io::sleep(runtime.executor, runtime.clock, look ? kPauseBetweenLooks : kPause);
  }
}

ImageLock::ImageLock(ImageLock&& other) noexcept
    : file_(std::exchange(other.file_, nullptr)),
      role_(other.role_),
      supported_(other.supported_) {}

ImageLock& ImageLock::operator=(ImageLock&& other) noexcept {
  if (this != &other) {
    release();
    file_ = std::exchange(other.file_, nullptr);
    role_ = other.role_;
    supported_ = other.supported_;
  }
  return *this;
}

ImageLock::~ImageLock() { release(); }

void ImageLock::become_reader() {
  if (file_ == nullptr || role_ == LockRole::reader) return;
  file_->unlock_byte(kHolds + kWrite);
  file_->unlock_byte(kHolds + kResize);
  role_ = LockRole::reader;
}

void ImageLock::release() noexcept {
  io::File* const file = std::exchange(file_, nullptr);
  if (file == nullptr) return;
  for (const uint64_t byte : bytes_of(role_)) {
    try {
      file->unlock_byte(byte);
    } catch (const std::exception&) {
      // Closing the descriptor, which follows, gives back whatever is left.
    }
  }
}

}  // namespace qcow
