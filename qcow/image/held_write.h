// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "io/buffer.h"
#include "io/sync.h"
#include "qcow/image/range_queue.h"

namespace qcow {

/// A piece that Image::write() took over, and its share of the budget.
struct Payload {
  io::Buffer bytes;
  io::Grant budget;
};

/// Clusters held until their data write has ended: its end lets the next operation in. The memory
/// lives as long as any write of it.
struct HeldWrite {
  std::shared_ptr<Payload> payload;  // may be null
  io::Buffer cluster;                // a completed partial cluster, or empty
  io::Grant completed;               // the cluster's share of what completed ones may take
  RangeQueue::Hold hold;             // destroyed first
};

}  // namespace qcow
