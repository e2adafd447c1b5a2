// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/clock.h"
#include "io/task.h"

/// Files, as a ring (io/ring_file_system.h) or the crash simulation (tests/support) gives them.
///
/// Nothing above io/ reaches a file in any other way. Every failure throws std::system_error whose
/// text names verb, file and byte range. Calls belong to the executor's thread; several may be
/// under way on one file.
namespace io {

class Random;
struct Runtime;

class File {
 public:
  virtual ~File() = default;

  virtual const std::string& path() const = 0;

  /// Offsets, lengths and addresses that are multiples of this reach the disk without a copy
  /// (O_DIRECT); all others are allowed too, and go through the page cache. 1 when the file
  /// system has no direct access.
  virtual uint32_t direct_alignment() const = 0;

  /// From now on everything goes through the page cache: for a caller whose writes under way may
  /// share a page, which the kernel answers with EIO when one of them is direct.
  virtual void use_page_cache() {}

  /// Fills `into` from `offset`; what lies past the end of the file reads as zeroes.
  virtual Task<void> read(uint64_t offset, std::span<std::byte> into) = 0;

  /// Writes all of `from`; never a short write.
  virtual Task<void> write(uint64_t offset, std::span<const std::byte> from) = 0;

  /// Writes the pieces one after the other, starting at `offset`. At most 1,024 pieces.
  virtual Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) = 0;

  /// fdatasync: contents and size are durable. A failure is final: what was written before may be
  /// lost, and a later success says nothing about it.
  virtual Task<void> sync_data() = 0;

  /// fsync: the same with all attributes.
  virtual Task<void> sync() = 0;

  virtual Task<uint64_t> size() = 0;
  virtual Task<void> truncate(uint64_t size) = 0;

  /// Reserves space; the file grows to cover the range, which reads as zeroes where nothing was.
  /// False when the file system cannot do that (EOPNOTSUPP); the caller continues without.
  virtual Task<bool> allocate(uint64_t offset, uint64_t length) = 0;

  /// Gives the range's space back; it reads as zeroes. False as for allocate().
  virtual Task<bool> punch_hole(uint64_t offset, uint64_t length) = 0;

  /// Drops what the page cache holds of the file and the disk holds too, so that what is read next
  /// comes from the disk. Does nothing where the file system cannot do that.
  virtual Task<void> forget_cached() { co_return; }

  /// Bytes of disk space the file takes.
  virtual Task<uint64_t> allocated_bytes() = 0;

  /// Takes (or gives back) a shared open-file-description lock on the single byte at `at`.
  /// False when another holder conflicts. No wait. Throws ENOTSUP-like errors of the file system.
  ///
  /// A lock is held until the last call on this File has ended, also when the process is killed
  /// meanwhile: what the kernel still carries out for a dead process keeps its lock. Whoever gets
  /// the lock can therefore be sure that no earlier holder's write lands any more.
  virtual bool lock_byte_shared(uint64_t at) = 0;
  virtual void unlock_byte(uint64_t at) = 0;
  /// True when another File, here or in another process, holds a lock on that byte that conflicts
  /// with an exclusive one.
  virtual bool byte_is_locked_elsewhere(uint64_t at) = 0;

  /// Whether another File, here or in a process that this one can see, has the file open. While a
  /// lock is held elsewhere and this says no, its holder is dead and its last calls are under way.
  virtual Task<bool> is_open_elsewhere() = 0;
};

enum class OpenMode : uint8_t {
  read_only,
  read_write,
  create_new,      ///< read-write; EEXIST when the name is taken
  create_private,  ///< the same, with mode 0600
  own_or_create,   ///< read-write; refuses another user's file, makes a missing one
  disk_read_only,  ///< read-only; a block device too, whoever else has it open
  block_device,    ///< read-write, EBUSY when it is mounted or claimed; nothing but a block device
};

enum class FileKind : uint8_t { file, directory, symlink, other };

struct DirectoryEntry {
  std::string name;
  FileKind kind = FileKind::other;
};

struct FileStatus {
  FileKind kind = FileKind::other;
  uint64_t size = 0;             ///< bytes
  uint64_t allocated_bytes = 0;  ///< bytes of disk space
  uint64_t device = 0, inode = 0;
};

struct SpaceStatus {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  ///< to this process
};

/// Names and directories. Paths are absolute.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// Opens regular files only, unless a block device is asked for, and no symbolic link: others may write to the directory. A FIFO of
  /// that name does not block. Whoever wants to follow a link resolves the path first.
  virtual Task<std::unique_ptr<File>> open(std::string path, OpenMode mode) = 0;

  /// Replaces an existing `to` when `replace`, else EEXIST. Where the file system cannot rename
  /// without replacing, `to` becomes a second name before `from` goes: a crash may leave both, and
  /// the same call made again then ends well.
  virtual Task<void> rename(std::string from, std::string to, bool replace) = 0;
  virtual Task<void> remove(std::string path) = 0;
  virtual Task<void> remove_directory(std::string path) = 0;
  /// Makes `path` and the missing directories above it, and makes their names durable.
  virtual Task<void> make_directories(std::string path) = 0;
  virtual Task<void> make_symlink(std::string target, std::string link) = 0;

  /// fsync of the directory: names created, renamed and removed in it are durable.
  virtual Task<void> sync_directory(std::string path) = 0;

  /// In no particular order, without "." and "..".
  virtual Task<std::vector<DirectoryEntry>> list(std::string path) = 0;

  /// Nothing when the name does not exist. Follows symbolic links unless asked not to.
  virtual Task<std::optional<FileStatus>> status(std::string path, bool follow = true) = 0;

  /// The path without symbolic links and dots.
  virtual Task<std::string> resolve(std::string path) = 0;

  virtual Task<SpaceStatus> space(std::string path) = 0;
};

/// The whole file as text; throws EFBIG above `bytes_max`.
Task<std::string> read_text(FileSystem& files, std::string path, size_t bytes_max = 64 << 20);

/// `path`, or where it points to when it is a symbolic link: for a path that the operator gave.
Task<std::string> follow_link(FileSystem& files, std::string path);

/// Puts `text` under `path` so that a crash leaves the old or the new file, never a mixture:
/// temporary file, fsync, rename, fsync of the directory. `mode` is that of the new file. Each call
/// has a temporary file of its own, so several may replace one file at the same time: the last
/// rename wins. A failure leaves the old file, and no temporary one where it can be removed.
Task<void> replace_text(Runtime runtime, std::string path, std::string text,
                        OpenMode mode = OpenMode::create_new);

/// A name beside `path` that nothing else uses: "<path>.<16 hexadecimal digits>.new". What a crash
/// leaves under such a name is recognised by its end, kTemporarySuffix.
std::string temporary_path(Random& random, std::string_view path);
inline constexpr std::string_view kTemporarySuffix = ".new";

/// Removes what a crash inside replace_text(path) has left. For the only writer of `path`.
Task<void> remove_temporaries(FileSystem& files, std::string path);

/// "/a/b" of "/a/b/c".
std::string parent_path(std::string_view path);

}  // namespace io
