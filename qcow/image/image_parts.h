#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "qcow/image/image.h"

/// The parts of an image's operations under way. Included by qcow/image_*.cc only.
namespace qcow {

struct Image::Payload {
  io::Buffer bytes;
  io::Grant budget;
};

/// Its end lets the next operation in; the memory lives as long as any write of it.
struct Image::HeldWrite {
  std::shared_ptr<Payload> payload;  // may be null
  io::Buffer cluster;                // a completed partial cluster, or empty
  io::Grant completed;               // the cluster's share of what completed ones may take
  RangeQueue::Hold hold;             // destroyed first
};

struct Image::Room {
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
    if (reserved_) *reserved_ -= clusters_;
  }

 private:
  uint64_t* reserved_ = nullptr;
  uint64_t clusters_ = 0;
  io::Grant promise_;  // its share of what may be promised at once
};

/// What the tables name, found by reading all of them: three bits for each cluster of the file.
struct Image::Usage {
  std::vector<bool> named;   // host clusters
  std::vector<bool> owned;   // by an entry that says it is the only one
  std::vector<bool> shared;  // by several entries; empty when there is no such cluster
  uint64_t exclusive = 0;    // clusters of L2 tables and data with a refcount of one
  bool sound = true;         // every entry could be read
  bool two_owners = false;
  std::optional<uint64_t> past_end;  // a cluster behind the file and behind all refcounts

  explicit Usage(uint64_t clusters) : named(clusters), owned(clusters) {}

  void name(uint64_t cluster, bool is_exclusive) {
    if (cluster >= named.size()) {
      past_end = cluster;
      return;
    }
    if (named[cluster]) {
      if (is_exclusive || owned[cluster]) two_owners = true;
      shared.resize(named.size());
      shared[cluster] = true;
    }
    named[cluster] = true;
    if (is_exclusive) owned[cluster] = true;
  }
};

}  // namespace qcow
