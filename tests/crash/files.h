#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "io/runtime.h"
#include "tests/crash/disk.h"
#include "tests/crash/scheduler.h"

namespace crash {

/// Which calls fail, counted from the first one; each once.
struct Faults {
  std::optional<uint64_t> sync_at, write_at;
  int error = 0;
  uint64_t syncs = 0, writes = 0;  // so far
  bool punch_works = true;
  bool allocate_works = true;
};

/// io::FileSystem over a Disk. Every call waits for its turn between its beginning and its end, so
/// calls overtake one another as the seed will have it.
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

  Faults faults;

 private:
  class SimFile;
  std::string follow_links(std::string path) const;
  io::Task<void> change_names(std::string directory, Disk::Changes changes);

  Scheduler& scheduler_;
  Disk& disk_;
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
