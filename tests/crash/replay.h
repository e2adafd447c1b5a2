// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/crash/disk.h"
#include "tests/crash/rng.h"

namespace crash {

/// What a part of an image file is for.
enum class Part : uint8_t { data, header, refcount_table, refcount_block, l1, l2 };

/// The parts of the image files, as they are in the end, so that a state can keep only the L2
/// tables, say. A file that is no image has data only.
class Parts {
 public:
  Parts() = default;
  explicit Parts(const State& in_the_end);
  Part at(FileId file, uint64_t offset) const;

 private:
  struct Image {
    uint32_t cluster_bits = 9;
    std::vector<Part> clusters;
  };
  static Image parse(const Bytes& file);
  std::map<FileId, Image> images_;
};

/// Walks through a log and builds, at any point of it, disks that a power cut could leave there:
/// all that a sync covered which had ended, and of the rest whatever the seed picks.
class Replay {
 public:
  Replay(const State& start, const std::vector<Event>& log);

  bool at_end() const { return position_ == log_.size(); }
  /// Events that have happened.
  size_t position() const { return position_; }
  void advance();

  /// Changes that may be on the disk or not.
  size_t uncovered() const { return changes_.size(); }

  /// One such disk; `told` says in words what was picked.
  State build(Rng& rng, const Parts& parts, std::string& told) const;

 private:
  enum class Fate : uint8_t { lost, torn, kept };
  struct Change {
    const Event* event;
    bool done = false;
    bool given_up = false;  // a sync that covered it failed; no later one covers it
    bool is_names() const { return event->kind == Event::Kind::names; }
    bool is_write() const { return event->kind == Event::Kind::write; }
  };
  /// What is on the disk for certain.
  struct Durable {
    Bytes bytes;
    std::vector<uint64_t> sector_operation;  // the last one durable there
    uint64_t truncate_operation = 0;
    std::shared_ptr<const Bytes> shared;  // the same bytes, or null after a change
  };

  Change* find(uint64_t operation);
  void sync_begins(const Event& event);
  void sync_done(const std::vector<uint64_t>& covered);
  void settle(const Change& change);
  std::vector<Fate> pick(Rng& rng, const Parts& parts, std::string& told) const;
  static void apply(const Change& change, Fate fate, const Durable& durable, Rng& rng,
                    Bytes& content);

  const std::vector<Event>& log_;
  size_t position_ = 0;
  std::vector<Change> changes_;                      // in the order of beginning
  std::map<uint64_t, std::vector<uint64_t>> syncs_;  // under way: what they cover
  std::map<FileId, Durable> files_;
  State durable_;  // names and directories; files as at the start
};

}  // namespace crash
