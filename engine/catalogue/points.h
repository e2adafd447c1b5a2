// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/change_id.h"
#include "engine/values/types.h"

namespace engine {

/// The published points and their chains. Points of jobs that are being deleted do not count.
///
/// Invariant: a chain is linear; position 0 is its full and each later point's parent is the one
/// before it. Only JobCatalogue::publish and rebuild make points. On the catalogue's thread.
class PointCatalogue {
 public:
  explicit PointCatalogue(Db& db) : db_(db) {}

  /// "The parent": the newest point of (VM, repository, disk).
  std::optional<Point> newest(std::string_view context_id, std::string_view repository_id,
                              uint32_t disk_index);
  /// Any disk of the VM has a point in this repository.
  bool any(std::string_view context_id, std::string_view repository_id);
  std::optional<Point> find(std::string_view image_id);
  /// By job, disk index.
  std::vector<Point> of_job(std::string_view job_id);
  /// Every point of a repository, or of all with "": by VM, disk, generation, position.
  std::vector<Point> list(std::string_view repository_id);

  /// Those whose last proof is no newer than `until`: without one first, then the oldest.
  std::vector<Point> unproven_since(Time until);
  /// How many there are by the result of their last proof, "never" without one.
  std::map<std::string, uint64_t> count_by_verification();

  /// Of each disk in each repository with a point: the images of its newest chain, by VM name.
  std::vector<ChainLength> chain_lengths();

  /// One generation, or the newest; nothing when there is no point.
  std::optional<Chain> chain(std::string_view context_id, std::string_view repository_id,
                             uint32_t disk_index, std::optional<uint32_t> generation);
  /// Every generation of a disk, oldest first.
  std::vector<Chain> chains(std::string_view context_id, std::string_view repository_id,
                            uint32_t disk_index);
  /// The repository of the VM's newest point; "" without one.
  std::string newest_repository(std::string_view context_id);

  /// The newest point of a VM's disk over all repositories: in each the last of its chain, which a
  /// clock that was set back does not change; of these the one that was completed last.
  std::optional<Point> newest_of(std::string_view vm_name, uint32_t disk_index);
  /// The one that was completed last, at `until` or before.
  std::optional<Point> newest_until(std::string_view vm_name, uint32_t disk_index, Time until);
  /// By time of completion. "" and nothing mean all VMs and all disks.
  std::vector<Point> newest_first(std::string_view vm_name, std::optional<uint32_t> disk_index,
                                  uint64_t limit, uint64_t offset);
  /// Of every disk of every VM the newest one (newest_of), disks that were removed left out.
  std::vector<Point> newest_of_each(std::optional<uint32_t> disk_index, uint64_t limit,
                                    uint64_t offset);
  /// Of a disk in its repository, over all its chains, newest first: those published before the job
  /// `before` began; of all with "".
  std::vector<Point> history(std::string_view context_id, std::string_view repository_id,
                             uint32_t disk_index, std::string_view before, size_t count_max);
  /// The point and those below it in its chain, the nearest first.
  std::vector<Point> lineage(const Point& point);
  /// At most `count_max` points in the order of VM name, disk and job id, after the point of these.
  std::vector<Point> after(std::string_view vm_name, uint32_t disk_index, std::string_view job_id,
                           size_t count_max);

  /// Where a point on `parent_image_id` goes ("" for a full).
  ChainPlace place(std::string_view context_id, std::string_view repository_id, uint32_t disk_index,
                   std::string_view parent_image_id);

  /// The newest usable change id of each disk, over one repository or, with "", over all.
  std::vector<NewestChangeId> change_ids(std::string_view context_id,
                                         std::string_view repository_id);

 private:
  Db& db_;
};

}  // namespace engine
