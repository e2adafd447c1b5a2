// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/damage_run.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow/chain/chain.h"

namespace crash {

namespace {

constexpr uint64_t kDamagesARun = 25;
constexpr size_t kOpsOfDamage = 30;
constexpr size_t kSessions = 2;

Shape shape_of(uint64_t seed) {
  Shape shape = Shape::of_seed(seed);
  shape.made_in_run = shape.over_nbd = shape.small_table = false;
  shape.used_before = true;
  shape.hot_size = shape.size;
  shape.clients = 1;
  shape.faults = {};
  shape.elides = shape.publishes = false;
  return shape;
}

io::Task<void> publish(World& world, qcow::ImageOptions options) {
  const auto image = co_await qcow::Image::open(world.runtime(), ImageRun::kPath, options);
  co_await image->seal();
  co_await image->publish_header({}, 1);
  co_await image->close();
}

/// Whole sectors: a write that is refused leaves old or new ones, and the next is not put together
/// with either.
Op in_sectors(Op op) {
  const uint64_t end = sector_up(op.offset + op.length);
  op.offset = sector_down(op.offset);
  op.length = end - op.offset;
  return op;
}

/// The disk cluster by cluster: one that cannot be read fails alone.
struct Reading {
  Bytes bytes;
  std::vector<bool> failed;  // by cluster
};

io::Task<Reading> read_by_cluster(World& world, uint64_t size, uint64_t cluster_bytes) {
  Reading reading{Bytes(size), std::vector<bool>((size + cluster_bytes - 1) / cluster_bytes, true)};
  std::unique_ptr<qcow::Chain> chain;
  try {
    qcow::ChainOptions options;
    options.salvage = true;  // an image with two owners of a cluster is marked corrupt
    chain = co_await qcow::Chain::open(world.runtime(), ImageRun::kPath, options);
  } catch (const std::exception&) {
    co_return reading;
  }
  if (chain->size() != size) co_return reading;
  for (size_t i = 0; i < reading.failed.size(); ++i) {
    const uint64_t at = i * cluster_bytes;
    const auto into = std::span(reading.bytes).subspan(at, std::min(cluster_bytes, size - at));
    try {
      co_await chain->read(at, into);
      reading.failed[i] = false;
    } catch (const std::exception&) {
      // Stays marked.
    }
  }
  co_return reading;
}

}  // namespace

DamageRun::DamageRun(Campaign& campaign, uint64_t seed)
    : campaign_(campaign), seed_(seed), shape_(shape_of(seed)) {
  start_ = prepare_disk(seed, shape_).disk;
  Rng rng(seed_of(seed, 12));
  World world(start_);
  published_ = rng.one_in(4);
  if (published_) world.scheduler.run(publish(world, shape_.options));
  content_ = read_disk(world, ImageRun::kPath);
  start_ = world.disk.live();
}

DamageRun::~DamageRun() = default;

std::optional<Failure> DamageRun::run() {
  for (uint64_t number = 0; number < kDamagesARun; ++number) {
    const std::string name = std::to_string(number);
    if (!campaign_.only_cut.empty() && campaign_.only_cut != name) continue;
    ++campaign_.states;
    if (const auto wrong = judge(number)) return Failure{*wrong, name};
  }
  return std::nullopt;
}

std::optional<std::string> DamageRun::judge(uint64_t number) {
  Rng rng(seed_of(seed_of(seed_, 11), number));
  State state = start_;
  const Damage damage = do_damage(state, ImageRun::kPath, rng);
  World world(state);
  if (damage.kind == DamageKind::unreadable) {
    world.files.unreadable = {state.names.at(ImageRun::kPath).file, damage.at};
  }
  auto wrong = judge_damage(world, damage, number);
  if (wrong) wrong = fmt::format("{}; {}", *wrong, damage.text());
  return wrong;
}

std::optional<std::string> DamageRun::judge_damage(World& world, const Damage& damage,
                                                   uint64_t number) {
  model_.emplace(content_);
  opened_ = false;
  complaint_.clear();
  now_ = 0;
  ignore_what_is_damaged(world);
  const uint64_t seed = seed_of(seed_, number);
  for (size_t session = 0; session < kSessions; ++session) {
    std::vector<Op> script = script_of_seed(seed + session, shape_, kOpsOfDamage);
    std::transform(script.begin(), script.end(), script.begin(), in_sectors);
    world.scheduler.run(play(world, std::move(script)));
    if (!complaint_.empty()) return complaint_;
    const bool told_apart = damage.part != Part::header || damage.kind == DamageKind::cleared_seal;
    if (published_ && opened_ && told_apart) return "BAD: a published image is opened for writing";
  }
  return std::nullopt;
}

/// What the damage itself has changed or made unreadable is nobody's to keep.
void DamageRun::ignore_what_is_damaged(World& world) {
  const uint64_t cluster_bytes = uint64_t{1} << shape_.cluster_bits;
  const Reading reading =
      world.scheduler.run(read_by_cluster(world, content_.size(), cluster_bytes));
  for (uint64_t at = 0; at < content_.size(); at += kSector) {
    const uint64_t length = std::min(kSector, content_.size() - at);
    const auto from = static_cast<ptrdiff_t>(at), to = static_cast<ptrdiff_t>(at + length);
    const bool same =
        std::equal(content_.begin() + from, content_.begin() + to, reading.bytes.begin() + from);
    if (reading.failed[at / cluster_bytes] || !same) model_->ignore(at, length);
  }
}

/// One image after the other, until the script ends or opening is refused.
io::Task<void> DamageRun::play(World& world, std::vector<Op> script) {
  std::unique_ptr<qcow::Image> image;
  for (const Op& op : script) {
    bool refused = false;
    try {
      if (!image) {
        image = co_await qcow::Image::open(world.runtime(), ImageRun::kPath, shape_.options);
      }
    } catch (const std::exception&) {
      refused = true;
    }
    if (refused) break;
    opened_ = true;
    if (op.kind == Op::Kind::reopen || op.kind == Op::Kind::kill) {
      co_await end(world, std::move(image), op.kind == Op::Kind::kill);
      if (!complaint_.empty()) co_return;
    } else if (op.length > 0) {
      co_await perform(world, *image, op);
    }
  }
  if (image) {
    co_await end(world, std::move(image), false);
  } else {
    co_await judge_what_is_left(world);
  }
}

io::Task<void> DamageRun::perform(World& world, qcow::Image& image, const Op& op) {
  if (op.kind == Op::Kind::read) co_return;
  const bool writes = op.kind == Op::Kind::write || op.kind == Op::Kind::write_fua;
  const bool flushes = op.kind == Op::Kind::flush || op.kind == Op::Kind::write_fua;
  const uint64_t sent = ++now_;
  std::optional<uint64_t> change;
  if (op.kind != Op::Kind::flush) {
    change = model_->begin(sent, op.offset, writes ? op.bytes() : Bytes(op.length));
  }
  bool accepted = false;
  try {
    if (writes) {
      const Bytes bytes = op.bytes();
      io::Buffer buffer = co_await world.buffers.acquire(bytes.size(), op.offset % 4096);
      std::copy(bytes.begin(), bytes.end(), buffer.data());
      co_await image.write(op.offset, std::move(buffer));
    } else if (op.kind != Op::Kind::flush) {
      const bool no_hole = op.kind == Op::Kind::zero_no_hole;
      const auto mode = no_hole ? io::ZeroMode::no_hole : io::ZeroMode::may_unmap;
      co_await image.write_zeroes(op.offset, op.length, mode);
    }
    accepted = true;
    if (change) model_->acknowledged(++now_, *change);
    const uint64_t flush_sent = ++now_;
    if (flushes) co_await image.flush();
    if (flushes) model_->flushed(flush_sent, ++now_);
  } catch (const std::exception&) {
    // Refused, or failed for good: old or new.
  }
  if (change && !accepted) model_->failed(*change);
}

io::Task<void> DamageRun::end(World& world, std::unique_ptr<qcow::Image> image, bool kill) {
  const uint64_t sent = ++now_;
  try {
    if (!kill) {
      co_await image->close();
      model_->flushed(sent, ++now_);
    }
  } catch (const std::exception&) {
    // Said so.
  }
  co_await image->abandon();
  image.reset();
  co_await judge_what_is_left(world);
}

/// What was not flushed may be there or not; from now on it is as it is found.
io::Task<void> DamageRun::judge_what_is_left(World& world) {
  const uint64_t cluster_bytes = uint64_t{1} << shape_.cluster_bits;
  const Reading reading = co_await read_by_cluster(world, content_.size(), cluster_bytes);
  for (uint64_t at = 0; at < content_.size(); at += kSector) {
    if (!reading.failed[at / cluster_bytes] || model_->ignores(at)) continue;
    complaint_ = fmt::format("LOST: the sector at {} cannot be read any more", at);
    co_return;
  }
  if (const auto wrong = model_->judge(reading.bytes, now_)) complaint_ = *wrong;
  model_->restarted(++now_, reading.bytes);
}

}  // namespace crash
