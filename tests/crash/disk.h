// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// A disk in memory that remembers everything that was done to it.
namespace crash {

using Bytes = std::vector<std::byte>;
using FileId = uint32_t;

inline constexpr uint64_t kSector = 512;  ///< a power cut tears between these, never inside
inline constexpr FileId kNoFile = 0;

/// What a name stands for. No file: the name is gone.
struct Node {
  FileId file = kNoFile;
  std::string link_target;  ///< of a symbolic link
  bool is_link() const { return !link_target.empty(); }
  bool gone() const { return file == kNoFile && link_target.empty(); }
};

/// Files at rest: what a disk holds when the power comes back. Cheap to copy, contents are shared.
struct State {
  std::map<std::string, Node> names;
  std::set<std::string> directories;
  std::map<FileId, std::shared_ptr<const Bytes>> files;
  FileId files_ever = 0;
  size_t catalogue = 0;  ///< commits of the database

  const Bytes* find(const std::string& path) const;
  void put(const std::string& path, Bytes bytes);
};

/// One thing that happened, in the order of happening. `operation` ties a beginning to its end.
struct Event {
  enum class Kind : uint8_t {
    write,         ///< begins: sectors at `offset`, as they are to be
    truncate,      ///< begins
    grow,          ///< begins: space allocated, the file is at least that long
    names,         ///< begins: create, rename, remove, in `directory`
    sync,          ///< begins
    sync_names,    ///< begins, of `directory`
    done,          ///< the operation has ended
    failed,        ///< it has failed; whatever it did may be on the disk in part
    dropped_sync,  ///< a sync has failed: what it covered may never reach the disk
    directory,     ///< made, with its name
    catalogue,     ///< one transaction of the database is durable
  };
  Kind kind = Kind::done;
  uint64_t operation = 0;
  FileId file = kNoFile;
  uint64_t offset = 0;
  uint64_t end = 0;  ///< the file's length, or its least length
  Bytes bytes{};
  std::string directory{};
  std::vector<std::pair<std::string, Node>> changes{};
  std::string renamed_from{}, renamed_to{};  ///< a directory that moves with these changes
};

/// The live files of a running system, and the log of how they came about.
class Disk {
 public:
  explicit Disk(State start, bool record = true);

  // Files. What begins changes nothing that can be read; what is done does.
  uint64_t begin_write(FileId file, uint64_t offset, std::span<const std::byte> bytes);
  void end_write(uint64_t operation, FileId file, uint64_t offset,
                 std::span<const std::byte> bytes);
  /// A write of a killed process lands, over whatever came since it began.
  void end_write_late(uint64_t operation, FileId file, uint64_t offset,
                      std::span<const std::byte> bytes);
  /// A killed process's writes in flight may meet those of the next one.
  void forget_who_writes() { writes_.clear(); }
  /// `grow`: the file is at least that long; else exactly.
  uint64_t begin_resize(FileId file, uint64_t size, bool grow);
  void end_resize(uint64_t operation, FileId file, uint64_t size);
  uint64_t begin_sync(FileId file);
  void done(uint64_t operation) { note({.kind = Event::Kind::done, .operation = operation}); }
  void failed(uint64_t operation);
  void sync_failed(uint64_t operation);

  void read(FileId file, uint64_t offset, std::span<std::byte> into) const;
  uint64_t size(FileId file) const { return content(file).size(); }
  const Bytes& content(FileId file) const;

  // Names, as of one directory. They change when the operation ends.
  const Node* find(const std::string& path) const;
  FileId new_file();
  using Changes = std::vector<std::pair<std::string, Node>>;
  uint64_t begin_names(const std::string& directory, const Changes& changes);
  /// A directory gets another name, with all that is in it, at once. Returns the operation, and the
  /// changes that end_names() wants.
  std::pair<uint64_t, Changes> begin_rename_directory(const std::string& from,
                                                      const std::string& to);
  void end_rename_directory(uint64_t operation, const Changes& changes, const std::string& from,
                            const std::string& to);
  void end_names(uint64_t operation, const Changes& changes);
  uint64_t begin_sync_names(const std::string& directory);
  void make_directory(const std::string& path);
  /// A power cut may bring it back, which harms nobody.
  void remove_directory(const std::string& path) { directories_.erase(path); }
  bool is_directory(const std::string& path) const { return directories_.contains(path); }
  const std::map<std::string, Node>& names() const { return names_; }
  const std::set<std::string>& directories() const { return directories_; }

  void catalogue_committed() { note({.kind = Event::Kind::catalogue}); }

  const State& start() const { return start_; }
  const std::vector<Event>& log() const { return log_; }
  /// How many things have happened.
  uint64_t events() const { return log_.size(); }
  /// A moment of its own, later than every one before: several fall between two events.
  uint64_t moment() {
    last_moment_ = std::max(last_moment_ + 1, events() * kMomentsAnEvent);
    return last_moment_;
  }
  /// The last moment before the event that comes after `events`.
  static uint64_t last_moment(uint64_t events) { return (events + 1) * kMomentsAnEvent - 1; }
  /// The files as a kill of the process leaves them.
  State live() const;

 private:
  struct Inode {
    std::shared_ptr<const Bytes> shared;  // until the first change
    Bytes own;
    bool changed = false;
  };
  struct UnderWay {
    FileId file;
    uint64_t offset, end;
  };

  Bytes& writable(FileId file);
  void note(Event event);
  void note_write(uint64_t operation, FileId file, uint64_t offset,
                  std::span<const std::byte> bytes);
  void refuse_overlap(FileId file, uint64_t offset, uint64_t end) const;

  State start_;
  bool record_;
  std::map<FileId, Inode> files_;
  FileId files_ever_;
  std::map<std::string, Node> names_;
  std::set<std::string> directories_;
  std::map<uint64_t, UnderWay> writes_;
  static constexpr uint64_t kMomentsAnEvent = 1 << 20;
  uint64_t operations_ = 0;
  uint64_t last_moment_ = 0;
  std::vector<Event> log_;
};

std::string directory_of(const std::string& path);

constexpr uint64_t sector_down(uint64_t at) { return at / kSector * kSector; }
constexpr uint64_t sector_up(uint64_t at) { return sector_down(at + kSector - 1); }

}  // namespace crash
