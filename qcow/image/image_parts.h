// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "io/runtime.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/locks.h"
#include "qcow/format/header.h"
#include "qcow/image/allocator.h"
#include "qcow/image/cluster_map.h"
#include "qcow/image/commit_demand.h"
#include "qcow/image/file_space.h"
#include "qcow/image/freed_clusters.h"
#include "qcow/image/image_failure.h"
#include "qcow/image/image_options.h"
#include "qcow/image/partial_clusters.h"
#include "qcow/image/range_queue.h"
#include "qcow/image/sum_log.h"
#include "qcow/image/write_behind.h"

namespace qcow {

/// What the work on a writable image is done with. Who works (reader, writer, commits, admission)
/// is made of it once it is whole, and keeps references to what it uses.
struct ImageParts {
  ImageParts(io::Runtime in, std::string image_name, ImageOptions tuned,
             std::unique_ptr<io::File> opened, std::function<void()> on_failure)
      : runtime(in),
        name(std::move(image_name)),
        options(std::move(tuned)),
        file(std::move(opened)),
        failure(std::move(on_failure)),
        demand(in.executor, options.commit_bytes),
        ranges(in.executor) {}

  io::Runtime runtime;
  std::string name;
  ImageOptions options;
  std::unique_ptr<io::File> file;
  ImageLock lock;  // given back before the file closes
  Header header;
  Geometry geometry;
  std::unique_ptr<Chain> parents;  // null for a full image
  ImageFailure failure;
  ImageCounters counters;
  CommitDemand demand;
  FreedClusters freed;
  RangeQueue ranges;

  // Made while the image opens.
  std::optional<Allocator> allocator;
  std::optional<ClusterMap> map;
  std::optional<FileSpace> space;
  std::optional<WriteBehind> write_behind;
  std::optional<PartialClusters> partials;
  std::optional<SumLog> sums;  // where a manifest is wanted
};

}  // namespace qcow
