// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "io/task_scope.h"
#include "qcow/image/image_parts.h"
#include "qcow/image/partial_relief.h"

namespace qcow {

/// Makes what was accepted durable: one commit at a time, in the background and for flush().
///
/// Invariant: nothing durable ever names something that is not (DU4); docs/qcow2-writing.md, "One
/// commit", argues the order. A commit that fails ends the image. Belongs to one executor thread;
/// outlives its tasks, and is stopped before it is destroyed.
class Committer {
 public:
  Committer(ImageParts& parts, PartialRelief& relief);
  ~Committer();

  /// Commits in the background from now on, after ImageOptions::commit_interval at the latest.
  void start() { background_.spawn(commit_in_background()); }
  /// `co_await stop()`: the background commits end. Needs no memory; may be called again.
  auto stop() noexcept {
    stopping_ = true;
    demand_.urge();
    return background_.joined();
  }

  /// Returns when everything accepted before the call is durable. Callers that come while a commit
  /// runs share the next one (DU7). Throws the image's failure.
  io::Task<void> flush();
  /// `co_await wait_for_one()`: returns when the next commit has ended, or the image has.
  auto wait_for_one() { return ended_.wait(); }
  void wake() noexcept { ended_.wake(); }

  /// A file never becomes shorter while it is written. One that did was truncated by another
  /// program, and writing on would hide that: its lost clusters would read as zeroes.
  io::Task<void> require_length();
  /// What a sync did not write may be gone from the page cache too, so nothing that is read from
  /// the file afterwards can be trusted.
  io::Task<void> sync_data();

 private:
  io::Task<void> commit_in_background();
  io::Task<void> run();
  io::Task<void> steps();

  io::Clock& clock_;
  const std::string& name_;
  const io::Duration interval_;
  io::File& file_;
  const Geometry& geometry_;
  Allocator& allocator_;
  ClusterMap& map_;
  FileSpace& space_;
  WriteBehind& write_behind_;
  FreedClusters& freed_;
  CommitDemand& demand_;
  ImageFailure& failure_;
  ImageCounters& counters_;
  PartialRelief& relief_;
  uint64_t length_seen_ = 0;  // bytes of the file at the last commit
  uint64_t begun_count_ = 0;
  uint64_t ended_count_ = 0;  // one less while a commit runs
  io::Event ended_;
  bool stopping_ = false;
  io::TaskScope background_;
};

}  // namespace qcow
