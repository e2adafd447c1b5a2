// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/crash/damage.h"
#include "tests/crash/image_run.h"

namespace crash {

/// The production image over tables that were damaged: every guest sector that could still be read
/// keeps its content, whatever is written elsewhere, or the image refuses the writes.
///
/// Writes that are refused leave old or new sectors of their own range; those that are accepted and
/// flushed are there. A published image is refused whatever became of its seal. Each damage is one
/// state.
class DamageRun {
 public:
  DamageRun(Campaign& campaign, uint64_t seed);
  ~DamageRun();

  std::optional<Failure> run();

 private:
  std::optional<std::string> judge(uint64_t number);
  std::optional<std::string> judge_damage(World& world, const Damage& damage, uint64_t number);
  void ignore_what_is_damaged(World& world);
  io::Task<void> play(World& world, std::vector<Op> script);
  io::Task<void> perform(World& world, qcow::Image& image, const Op& op);
  io::Task<void> end(World& world, std::unique_ptr<qcow::Image> image, bool kill);
  io::Task<void> judge_what_is_left(World& world);

  Campaign& campaign_;
  const uint64_t seed_;
  Shape shape_;
  State start_;
  Bytes content_;
  bool published_ = false;

  std::optional<VersionModel> model_;  // of the damage that is being judged
  bool opened_ = false;                // for writing
  std::string complaint_;
  uint64_t now_ = 0;
};

}  // namespace crash
