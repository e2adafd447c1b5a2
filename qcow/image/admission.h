// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <cstdint>
#include <utility>

#include "qcow/image/committer.h"

namespace qcow {

/// Promises host clusters to operations before they enter theirs: what only a commit can give (host
/// clusters, memory for tables) is waited for here, and nowhere else.
///
/// Invariant: no more is promised than a commit makes room for, however many requests wait; space
/// in the file is there before anything is accepted. Belongs to one executor thread.
class Admission {
 public:
  Admission(ImageParts& parts, PartialRelief& relief, Committer& committer);

  /// The promise; ends with the operation.
  class Room {
   public:
    Room(uint64_t& reserved, uint64_t clusters, io::Grant promise)
        : reserved_(&reserved), clusters_(clusters), promise_(std::move(promise)) {
      reserved += clusters;
    }
    Room(Room&& other) noexcept
        : reserved_(std::exchange(other.reserved_, nullptr)),
          clusters_(other.clusters_),
          promise_(std::move(other.promise_)) {}
    Room& operator=(Room&&) = delete;
    ~Room() {
      if (!reserved_) return;
      assert(*reserved_ >= clusters_);
      *reserved_ -= clusters_;
    }

   private:
    uint64_t* reserved_ = nullptr;
    uint64_t clusters_ = 0;
    io::Grant promise_;  // its share of what may be promised at once
  };

  /// Promises `clusters` host clusters, L2 tables included. Waits for a commit when only that can
  /// make room. Nothing may be held while waiting here. Throws NoSpace.
  io::Task<Room> admit(uint64_t clusters);
  /// The image takes nothing new: who waits for room goes on without.
  void close() { closed_ = true; }

 private:
  bool must_wait_for_commit(uint64_t clusters) const;
  uint64_t end_after_commit() const;

  const Geometry& geometry_;
  const Allocator& allocator_;
  const ClusterMap& map_;
  const FreedClusters& freed_;
  const PartialClusters& partials_;
  FileSpace& space_;
  CommitDemand& demand_;
  const ImageFailure& failure_;
  SumLog* const sums_;  // or null
  PartialRelief& relief_;
  Committer& committer_;
  uint64_t reserved_ = 0;  // host clusters promised to operations under way
  // Of what a commit can make room for, this much may be promised at once. So the operations that
  // come while one runs find room, however many they are.
  const uint64_t promises_max_;
  io::Semaphore promises_;
  bool closed_ = false;
};

}  // namespace qcow
