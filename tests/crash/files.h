// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "io/runtime.h"
#include "tests/crash/disk.h"
#include "tests/crash/scheduler.h"

namespace crash {

class SimFile;

/// The one call that fails: the `at`th of its kind, counted from 0.
struct Faults {
  enum class Call : uint8_t { sync, write, read, truncate, allocate, punch, rename, remove };
  std::optional<Call> call;  ///< nothing: none fails
  uint64_t at = 0;
  std::string of{};  ///< only calls on paths that contain this
  int error = 0;
  bool has_struck = false;
  std::string struck_path{};  ///< the file whose call failed
  bool punch_works = true;
  bool allocate_works = true;

  /// Whether this call, which is of that kind, is the one.
  bool strikes(Call kind, const std::string& path);
  /// Nobody but the caller of the image may hear of it: it costs space or time only.
  bool is_silent() const { return !call || call == Call::allocate; }
  /// After it the disk may hold less than what was written.
  bool has_lost_data() const { return has_struck && (call == Call::sync || call == Call::write); }
  std::string text() const;
};

/// io::FileSystem over a Disk. Every call waits for its turn between its beginning and its end, so
/// calls overtake one another as the seed will have it.
///
/// Locks belong to open files, as the kernel's open file descriptions have them: those of a killed
/// process are given back when its last write in flight has landed. Direct and buffered writes that
/// meet in a page while both are under way make the next sync fail, as the kernel does.
class Files final : public io::FileSystem {
 public:
  Files(Scheduler& scheduler, Disk& disk) : scheduler_(scheduler), disk_(disk) {}

  io::Task<std::unique_ptr<io::File>> open(std::string path, io::OpenMode mode) override;
  io::Task<void> rename(std::string from, std::string to, bool replace) override;
  io::Task<void> remove(std::string path) override;
  io::Task<void> remove_directory(std::string path) override;
  io::Task<void> make_directories(std::string path) override;
  io::Task<void> make_symlink(std::string target, std::string link) override;
  io::Task<void> sync_directory(std::string path) override;
  io::Task<std::vector<io::DirectoryEntry>> list(std::string path) override;
  io::Task<std::optional<io::FileStatus>> status(std::string path, bool follow) override;
  io::Task<std::string> resolve(std::string path) override;
  io::Task<io::SpaceStatus> space(std::string path) override;

  /// Whoever has files open is killed: nothing more begins, and what is in flight lands in its own
  /// time. What is opened from now on belongs to the next process.
  void kill();

  Faults faults;
  bool noreplace_works = true;  ///< else a rename that must replace nothing gives EINVAL
  std::string read_only;        ///< below this directory every change gives EROFS
  std::string gone;             ///< below this directory there is nothing
  /// A sector that gives EIO: of which file, at which byte.
  std::optional<std::pair<FileId, uint64_t>> unreadable;

 private:
  friend class SimFile;
  /// Who has opened a file.
  struct Process {
    bool killed = false;
  };
  struct DirectWrite {
    FileId file;
    uint64_t first_page, end_page;
    bool page_dirtied = false;  // by a buffered write meanwhile
  };

  std::string follow_links(std::string path) const;
  const Node* find(const std::string& path) const;
  bool is_directory(const std::string& path) const;
  void require_writable(const char* verb, const std::string& path) const;
  io::Task<void> rename_directory(std::string from, std::string to);
  io::Task<void> change_names(std::string directory, Disk::Changes changes);
  void give_back_locks(const SimFile* holder);

  Scheduler& scheduler_;
  Disk& disk_;
  std::shared_ptr<Process> process_ = std::make_shared<Process>();
  std::set<SimFile*> open_;
  std::map<std::pair<FileId, uint64_t>, std::set<const SimFile*>> locks_;  // by byte: who holds it
  std::map<uint64_t, DirectWrite> direct_writes_;                          // by operation
  std::set<FileId> stale_;  // the next sync fails: a direct write met a dirty page
};

/// The outside world of one thread, simulated.
class World {
 public:
  World(State start, uint64_t seed) : scheduler(seed), disk(std::move(start)) {}
  /// For judges: at once, and nothing is recorded.
  explicit World(State start) : scheduler(Scheduler::immediate()), disk(std::move(start), false) {}

  io::Runtime runtime() { return {scheduler, scheduler, files, buffers, random_}; }

  Scheduler scheduler;
  Disk disk;
  Files files{scheduler, disk};
  io::BufferPool buffers{scheduler, 64 << 20};

 private:
  struct SimRandom final : io::Random {
    explicit SimRandom(Scheduler& scheduler) : rng(scheduler.rng().next()) {}
    uint64_t next() override { return rng.next(); }
    Rng rng;
  };
  SimRandom random_{scheduler};
};

}  // namespace crash
