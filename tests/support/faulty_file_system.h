// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/failure.h"
#include "io/file.h"
#include "io/runtime.h"
#include "io/sync.h"

namespace support {

/// One call on a file, before it happens.
struct FileCall {
  std::string_view verb;  ///< "read", "write", "sync", "truncate", "allocate", "punch"
  std::string_view path;
  uint64_t offset = 0;
  uint64_t length = 0;
};

/// What a test does to the files below the code under test. Every hook is optional.
struct FileFaults {
  /// An errno to fail the call with, or 0.
  std::function<int(const FileCall&)> fail;
  /// Where a write waits before it happens, or null.
  std::function<io::Event*(const FileCall&)> gate;
  /// The same of a read.
  std::function<io::Event*(const FileCall&)> read_gate;
  /// Sees each write's bytes when it has happened.
  std::function<void(uint64_t offset, std::span<const std::byte> bytes)> wrote;
  /// Sees each change of size (a truncate, or an allocation past the end).
  std::function<void(uint64_t size)> resized;
  /// Before a sync is sent, and when it has succeeded.
  std::function<void()> sync_begins, sync_done;
};

/// A file that asks the test before each call. The tests' own thread; faults outlive it.
class FaultyFile final : public io::File {
 public:
  FaultyFile(std::unique_ptr<io::File> below, FileFaults& faults)
      : below_(std::move(below)), faults_(faults) {}

  const std::string& path() const override { return below_->path(); }
  uint32_t direct_alignment() const override { return below_->direct_alignment(); }
  void use_page_cache() override { below_->use_page_cache(); }
  io::Task<void> forget_cached() override { return below_->forget_cached(); }

  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    ask("read", offset, into.size());
    io::Event* const gate =
        faults_.read_gate ? faults_.read_gate({"read", path(), offset, into.size()}) : nullptr;
    if (gate) co_await gate->wait();
    co_await below_->read(offset, into);
  }
  io::Task<void> write(uint64_t offset, std::span<const std::byte> from) override {
    ask("write", offset, from.size());
    if (io::Event* const gate = gate_of(offset, from.size())) co_await gate->wait();
    co_await below_->write(offset, from);
    if (faults_.wrote) faults_.wrote(offset, from);
  }
  io::Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) override {
    uint64_t length = 0;
    for (const iovec& piece : pieces) length += piece.iov_len;
    ask("write", offset, length);
    if (io::Event* const gate = gate_of(offset, length)) co_await gate->wait();
    co_await below_->write_gathered(offset, pieces);
    if (!faults_.wrote) co_return;
    for (const iovec& piece : pieces) {
      faults_.wrote(offset, {static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
      offset += piece.iov_len;
    }
  }
  io::Task<void> sync_data() override {
    ask("sync", 0, 0);
    if (faults_.sync_begins) faults_.sync_begins();
    co_await below_->sync_data();
    if (faults_.sync_done) faults_.sync_done();
  }
  io::Task<void> sync() override {
    ask("sync", 0, 0);
    if (faults_.sync_begins) faults_.sync_begins();
    co_await below_->sync();
    if (faults_.sync_done) faults_.sync_done();
  }
  io::Task<uint64_t> size() override { return below_->size(); }
  io::Task<void> truncate(uint64_t size) override {
    ask("truncate", size, 0);
    co_await below_->truncate(size);
    if (faults_.resized) faults_.resized(size);
  }
  io::Task<bool> allocate(uint64_t offset, uint64_t length) override {
    ask("allocate", offset, length);
    const bool done = co_await below_->allocate(offset, length);
    if (done && faults_.resized) faults_.resized(offset + length);
    co_return done;
  }
  io::Task<bool> punch_hole(uint64_t offset, uint64_t length) override {
    ask("punch", offset, length);
    co_return co_await below_->punch_hole(offset, length);
  }
  io::Task<uint64_t> allocated_bytes() override { return below_->allocated_bytes(); }
  bool lock_byte_shared(uint64_t at) override { return below_->lock_byte_shared(at); }
  void unlock_byte(uint64_t at) override { below_->unlock_byte(at); }
  bool byte_is_locked_elsewhere(uint64_t at) override {
    return below_->byte_is_locked_elsewhere(at);
  }
  io::Task<bool> is_open_elsewhere() override { return below_->is_open_elsewhere(); }

 private:
  io::Event* gate_of(uint64_t offset, uint64_t length) const {
    return faults_.gate ? faults_.gate({"write", path(), offset, length}) : nullptr;
  }
  void ask(std::string_view verb, uint64_t offset, uint64_t length) {
    if (!faults_.fail) return;
    const int error = faults_.fail({verb, path(), offset, length});
    if (error != 0) throw io::failure(verb, path(), offset, length, error);
  }

  std::unique_ptr<io::File> below_;
  FileFaults& faults_;
};

/// Opens faulty files for writing; everything else goes straight through.
class FaultyFileSystem final : public io::FileSystem {
 public:
  FaultyFileSystem(io::FileSystem& below, FileFaults& faults) : below_(below), faults_(faults) {}

  io::Task<std::unique_ptr<io::File>> open(std::string path, io::OpenMode mode) override {
    std::unique_ptr<io::File> file = co_await below_.open(std::move(path), mode);
    if (mode != io::OpenMode::read_only) {
      file = std::make_unique<FaultyFile>(std::move(file), faults_);
    }
    co_return file;
  }
  io::Task<void> rename(std::string from, std::string to, bool replace) override {
    return below_.rename(std::move(from), std::move(to), replace);
  }
  io::Task<void> remove(std::string path) override { return below_.remove(std::move(path)); }
  io::Task<void> remove_directory(std::string path) override {
    return below_.remove_directory(std::move(path));
  }
  io::Task<void> make_directories(std::string path) override {
    return below_.make_directories(std::move(path));
  }
  io::Task<void> make_symlink(std::string target, std::string link) override {
    return below_.make_symlink(std::move(target), std::move(link));
  }
  io::Task<void> sync_directory(std::string path) override {
    return below_.sync_directory(std::move(path));
  }
  io::Task<std::vector<io::DirectoryEntry>> list(std::string path) override {
    return below_.list(std::move(path));
  }
  io::Task<std::optional<io::FileStatus>> status(std::string path, bool follow) override {
    return below_.status(std::move(path), follow);
  }
  io::Task<std::string> resolve(std::string path) override {
    return below_.resolve(std::move(path));
  }
  io::Task<io::SpaceStatus> space(std::string path) override {
    return below_.space(std::move(path));
  }

 private:
  io::FileSystem& below_;
  FileFaults& faults_;
};

}  // namespace support
