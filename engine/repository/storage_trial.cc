// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/storage_trial.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "engine/values/layout.h"
#include "io/failure.h"
#include "io/file.h"

namespace engine {
namespace {

constexpr uint64_t kPage = 4096;
/// Large enough to be read directly too (io/ring_file.h).
constexpr uint64_t kDirectBytes = 256 << 10;
constexpr uint64_t kFileBytes = 1 << 20;
/// Where no page is shared with the direct write.
constexpr uint64_t kUnalignedAt = (512 << 10) + 123, kUnalignedBytes = 1000;
constexpr uint64_t kLockedByte = 100;

bool means_missing(const std::system_error& failure) {
  const int number = failure.code().value();
  return number == ENOTSUP || number == EOPNOTSUPP || number == ENOLCK || number == ENOSYS ||
         number == EINVAL || number == EPERM;
}

/// Memory that O_DIRECT takes.
class Pages {
 public:
  explicit Pages(uint64_t bytes) : memory_(bytes + kPage), bytes_(bytes) {
    void* start = memory_.data();
    size_t space = memory_.size();
    start_ = static_cast<std::byte*>(std::align(kPage, bytes, start, space));
  }
  std::span<std::byte> bytes() const { return {start_, bytes_}; }
  std::span<std::byte> part(uint64_t from, uint64_t count) const {
    return bytes().subspan(from, count);
  }

 private:
  std::vector<std::byte> memory_;
  std::byte* start_ = nullptr;
  uint64_t bytes_;
};

/// One trial. Its files have one beginning, which the sweep of the next start knows.
class Trial {
 public:
  Trial(io::Runtime runtime, std::string directory)
      : files_(runtime.files),
        random_(runtime.random),
        directory_(std::move(directory)),
        path_(fmt::format("{}/{}{:016x}", directory_, kTrialPrefix, random_.next())),
        other_path_(path_ + ".other"),
        link_path_(path_ + ".link") {}

  io::Task<void> run(const io::Runtime& runtime) {
    co_await try_text(runtime);
    auto file = co_await files_.open(path_, io::OpenMode::create_new);
    co_await try_data(*file);
    co_await try_sizes(*file);
    co_await try_locks(*file);
    file.reset();
    co_await try_names();
    co_await try_link();
  }

  io::Task<void> clean_up() {
    for (const std::string* path : {&path_, &other_path_, &link_path_}) {
      const auto left_over = co_await files_.status(*path, false);
      if (left_over) co_await files_.remove(*path);
    }
  }

  StorageAbilities abilities;

 private:
  /// As sidecars are written: temporary file, fsync, rename over the old one, directory fsync.
  io::Task<void> try_text(const io::Runtime& runtime) {
    for (const std::string text : {"varve tests", "this repository"}) {
      co_await io::replace_text(runtime, other_path_, text);
      const std::string read = co_await io::read_text(files_, other_path_);
      if (read != text) throw differs(other_path_, 0, text.size());
    }
  }

  /// As an image is filled: space ahead, aligned runs, metadata of any length, fdatasync.
  io::Task<void> try_data(io::File& file) {
    abilities.allocate_ahead = co_await file.allocate(0, kFileBytes);
    abilities.direct_io = file.direct_alignment() > 1;
    const Pages written = random_pages(kDirectBytes);
    const std::vector<iovec> halves = {as_piece(written.part(0, kDirectBytes / 2)),
                                       as_piece(written.part(kDirectBytes / 2, kDirectBytes / 2))};
    co_await file.write_gathered(0, halves);
    const Pages unaligned = random_pages(kUnalignedBytes);
    co_await file.write(kUnalignedAt, unaligned.bytes());
    co_await file.sync_data();
    co_await read_back(file, 0, written);
    co_await read_back(file, kUnalignedAt, unaligned);
  }

  io::Task<void> try_sizes(io::File& file) {
    abilities.punch_holes = co_await file.punch_hole(kDirectBytes / 2, kDirectBytes / 2);
    if (abilities.punch_holes) {
      Pages read(kDirectBytes / 2);
      co_await file.read(kDirectBytes / 2, read.bytes());
      for (const std::byte byte : read.bytes()) {
        if (byte != std::byte{}) throw differs(path_, kDirectBytes / 2, kDirectBytes / 2);
      }
    }
    for (const uint64_t size : {2 * kFileBytes, kFileBytes / 2}) {
      co_await file.truncate(size);
      const uint64_t now = co_await file.size();
      if (now != size) throw differs(path_, size, 0);
    }
    co_await file.sync();
  }

  io::Task<void> try_locks(io::File& file) {
    const auto second = co_await files_.open(path_, io::OpenMode::read_write);
    try {
      abilities.locks = file.lock_byte_shared(kLockedByte) &&
                        second->byte_is_locked_elsewhere(kLockedByte) &&
                        second->lock_byte_shared(kLockedByte);
      second->unlock_byte(kLockedByte);
      file.unlock_byte(kLockedByte);
    } catch (const std::system_error& failure) {
      if (!means_missing(failure)) throw;
      abilities.locks = false;
    }
  }

  /// As an image is published: to a name that is free, and never over one that is taken.
  io::Task<void> try_names() {
    int refused_with = 0;
    try {
      co_await files_.rename(path_, other_path_, false);
    } catch (const std::system_error& failure) {
      refused_with = failure.code().value();
    }
    if (refused_with != EEXIST) {
      throw io::failure("keep a taken name from being replaced by", path_,
                        refused_with != 0 ? refused_with : EIO);
    }
    co_await files_.remove(other_path_);
    co_await files_.rename(path_, other_path_, false);
    co_await files_.sync_directory(directory_);
  }

  io::Task<void> try_link() {
    try {
      co_await files_.make_symlink("nothing", link_path_);
      abilities.symbolic_links = true;
    } catch (const std::system_error& failure) {
      if (!means_missing(failure)) throw;
    }
  }

  io::Task<void> read_back(io::File& file, uint64_t at, const Pages& written) {
    const Pages read(written.bytes().size());
    co_await file.read(at, read.bytes());
    if (std::memcmp(read.bytes().data(), written.bytes().data(), read.bytes().size()) != 0) {
      throw differs(path_, at, read.bytes().size());
    }
  }

  Pages random_pages(uint64_t bytes) {
    Pages pages(bytes);
    for (std::byte& byte : pages.bytes()) byte = static_cast<std::byte>(random_.next());
    return pages;
  }

  static iovec as_piece(std::span<std::byte> bytes) { return {bytes.data(), bytes.size()}; }

  /// The file system reported success.
  static std::system_error differs(const std::string& path, uint64_t at, uint64_t length) {
    return io::failure("find what was written in", path, at, length, EIO);
  }

  io::FileSystem& files_;
  io::Random& random_;
  const std::string directory_, path_, other_path_, link_path_;
};

}  // namespace

io::Task<StorageAbilities> try_storage(io::Runtime runtime, std::string directory) {
  Trial trial(runtime, std::move(directory));
  std::exception_ptr failure;
  try {
    co_await trial.run(runtime);
  } catch (...) {
    failure = std::current_exception();
  }
  try {
    co_await trial.clean_up();
  } catch (...) {
    if (!failure) failure = std::current_exception();
  }
  if (failure) std::rethrow_exception(failure);
  co_return trial.abilities;
}

}  // namespace engine
