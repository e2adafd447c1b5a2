#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "qcow/image.h"

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
  Room() = default;
  Room(uint64_t& reserved, uint64_t clusters) : reserved_(&reserved), clusters_(clusters) {
    reserved += clusters;
  }
  Room(Room&& other) noexcept
      : reserved_(std::exchange(other.reserved_, nullptr)), clusters_(other.clusters_) {}
  Room& operator=(Room&&) = delete;
  ~Room() {
    if (reserved_) *reserved_ -= clusters_;
  }

 private:
  uint64_t* reserved_ = nullptr;
  uint64_t clusters_ = 0;
};

/// What the tables name, found by reading all of them.
struct Image::Usage {
  std::vector<bool> named;   // host clusters
  uint64_t end_cluster = 0;  // behind the last of them
  uint64_t owned = 0;        // clusters of L2 tables and data with a refcount of one
  bool sound = true;         // every entry could be read, none past the end of the file
  bool two_owners = false;

  void name(uint64_t cluster, bool exclusive) {
    end_cluster = std::max(end_cluster, cluster + 1);
    if (cluster >= named.size()) {
      sound = false;
      return;
    }
    if (exclusive && named[cluster]) two_owners = true;
    named[cluster] = true;
  }
};

}  // namespace qcow
