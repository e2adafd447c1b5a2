// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/script.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace crash {

std::string Op::text() const {
  static constexpr const char* kNames[] = {
      "write", "write-fua", "zero", "zero-no-hole", "discard", "flush", "read", "reopen", "kill"};
  std::string text =
      fmt::format("client {} {} {}+{}", client, kNames[static_cast<size_t>(kind)], offset, length);
  if (again)
    text += fmt::format(", the parents' of {}{}", *again, almost ? " but for one bit" : "");
  return text;
}

Bytes Op::bytes() const {
  Bytes bytes(length);
  Rng rng(tag);
  // Every sector its own word, all through, so that a torn one shows.
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t word = rng.next();
    const size_t end = std::min<size_t>(bytes.size(), sector_up(offset + at + 1) - offset);
    for (; at < end; at += 8) std::memcpy(&bytes[at], &word, std::min<size_t>(8, end - at));
    at = end;
  }
  return bytes;
}

namespace {

/// The fault of some seeds: one call fails.
Faults faults_of(Rng& rng) {
  Faults faults;
  faults.punch_works = !rng.one_in(2);
  faults.allocate_works = !rng.one_in(3);
  if (!rng.one_in(4)) return faults;
  using Call = Faults::Call;
  constexpr std::array kCalls = {Call::sync,  Call::sync,    Call::sync, Call::sync,
                                 Call::write, Call::write,   Call::read, Call::allocate,
                                 Call::punch, Call::truncate};
  constexpr std::array<uint64_t, 6> kCallsOfRun = {25, 150, 300, 3, 10, 8};  // about, by kind
  faults.error = rng.one_in(2) ? EIO : ENOSPC;
  faults.call = kCalls[rng.below(kCalls.size())];
  faults.at = rng.below(kCallsOfRun[static_cast<size_t>(*faults.call)]);
  return faults;
}

/// Whether parents have manifests, and the image becomes a point.
void decide_proofs(Shape& shape, uint64_t seed) {
  Rng rng(seed_of(seed, 13));
  shape.publishes = rng.one_in(3);
  if (shape.parent_sizes.empty() || rng.one_in(4)) return;
  shape.elides = true;
  shape.used_before &= rng.one_in(3);  // what the image stores itself is not the parents'
  constexpr std::array kHarms = {
      Harm::none,           Harm::rotten,           Harm::rotten,
      Harm::swapped,        Harm::swapped,          Harm::lying_manifest,
      Harm::lying_manifest, Harm::damaged_manifest, Harm::foreign_manifest,
      Harm::no_manifest};
  shape.harm = kHarms[rng.below(kHarms.size())];
}

/// What the parents hold comes again: mostly where it was, often all of a cluster.
void send_again(std::vector<Op>& ops, const Shape& shape, uint64_t seed) {
  Rng rng(seed_of(seed, 14));
  const uint64_t cluster_bytes = uint64_t{1} << shape.cluster_bits;
  for (Op& op : ops) {
    const bool writes = op.kind == Op::Kind::write || op.kind == Op::Kind::write_fua;
    if (!writes || op.length == 0 || rng.one_in(3)) continue;
    if (rng.one_in(2)) {
      op.offset = op.offset / cluster_bytes * cluster_bytes;
      op.length = std::min(rng.between(1, 6) * cluster_bytes, shape.hot_size - op.offset);
    }
    op.again = op.offset;
    if (rng.one_in(4)) {
      op.again =
          rng.below(shape.hot_size) / cluster_bytes * cluster_bytes + op.offset % cluster_bytes;
    }
    op.almost = rng.one_in(6);
  }
}

}  // namespace

Shape Shape::of_seed(uint64_t seed) {
  Rng rng(seed_of(seed, 1));
  Shape shape;
  constexpr uint32_t kClusterBits[] = {9, 9, 9, 10, 10, 11, 12};
  shape.cluster_bits = kClusterBits[rng.below(7)];
  shape.refcount_order = static_cast<uint32_t>(rng.between(4, 6));
  const uint64_t cluster_bytes = uint64_t{1} << shape.cluster_bits;
  shape.size = rng.between(80, 260) * cluster_bytes;
  if (shape.cluster_bits > 10) shape.size = rng.between(40, 120) * cluster_bytes;
  shape.size += rng.one_in(3) ? kSector * rng.below(cluster_bytes / kSector) : 0;
  shape.hot_size = shape.size;
  const uint64_t parents = rng.one_in(2) ? 0 : rng.between(1, 3);
  for (uint64_t i = 0; i < parents; ++i) {
    shape.parent_sizes.push_back(kSector * rng.between(20, 2 * shape.size / kSector));
  }
  shape.made_in_run = rng.one_in(4);
  if (rng.one_in(8)) {
    shape = {.cluster_bits = 9, .refcount_order = 6, .size = 2 << 20, .hot_size = 100'000};
    shape.small_table = true;
  }
  shape.used_before = !shape.made_in_run && !shape.small_table && !rng.one_in(3);
  shape.over_nbd = rng.one_in(4);
  shape.clients = static_cast<uint32_t>(rng.between(1, 4));
  shape.depth = static_cast<uint32_t>(rng.between(1, 3));
  qcow::ImageOptions& options = shape.options;
  qcow::ImageTuning& tuning = options.tuning;
  options.commit_interval = std::chrono::microseconds(100u << rng.below(12));
  options.commit_bytes = rng.between(4, 64) << 10;
  // More than what operations may have to keep for one another (Image::must_wait_for_commit).
  tuning.refcount_cover_bytes = rng.between(150, 300) * cluster_bytes;
  tuning.partial_bytes = rng.between(1, 8) * 4096;
  tuning.writes_in_flight = rng.between(1, 8);
  if (!rng.one_in(3)) tuning.table_cache_bytes = rng.between(1, 4) * 4096;  // of 1 to 9 tables
  tuning.merged_write_bytes = rng.between(1, 16) * cluster_bytes;
  tuning.write_behind_bytes = rng.between(64, 1024) << 10;
  options.allocate_ahead = !rng.one_in(3);
  shape.faults = faults_of(rng);
  tuning.allocate_step_bytes = rng.between(8, 64) * cluster_bytes;
  tuning.sparse_unit_bytes = kSector;
  if (!rng.one_in(3)) tuning.sparse_write_cost_bytes = rng.below(cluster_bytes / 2);
  if (rng.one_in(2)) options.no_hole = qcow::NoHole::allocate;
  decide_proofs(shape, seed);
  return shape;
}

std::string Shape::text() const {
  static constexpr const char* kHarms[] = {"unharmed",       "rotten",           "swapped",
                                           "lying manifest", "damaged manifest", "foreign manifest",
                                           "no manifest"};
  return fmt::format(
      "{} bytes in clusters of {}, refcounts of 2^{} bits, {} parents{}{}{}{}{}{}, {} clients of "
      "depth {}{}",
      size, 1u << cluster_bits, refcount_order, parent_sizes.size(),
      elides ? fmt::format(" whose bytes are elided ({})", kHarms[static_cast<size_t>(harm)]) : "",
      publishes ? ", published in the end" : "", made_in_run ? ", made in the run" : "",
      small_table ? ", small refcount table" : "", used_before ? ", used before" : "",
      over_nbd ? ", over NBD" : "", clients, depth, faults.call ? ", " + faults.text() : "");
}

std::vector<Op> script_of_seed(uint64_t seed, const Shape& shape, size_t count) {
  Rng rng(seed_of(seed, 2));
  const uint64_t cluster_bytes = uint64_t{1} << shape.cluster_bits;
  const uint64_t flush_rate = rng.between(6, 40);
  uint64_t hot_spot[4];
  for (uint64_t& at : hot_spot) at = rng.below(shape.hot_size) / cluster_bytes * cluster_bytes;
  std::vector<Op> ops;
  for (size_t i = 0; i < count; ++i) {
    Op op;
    op.client = static_cast<uint32_t>(rng.below(shape.clients));
    op.tag = rng.next();
    op.offset = rng.one_in(2) ? rng.below(shape.hot_size)
                              : hot_spot[rng.below(4)] + rng.below(2 * cluster_bytes);
    op.length = 1 + rng.below(rng.one_in(4) ? 8 * cluster_bytes : 2 * cluster_bytes);
    // Mostly sectors, often whole clusters, sometimes any byte.
    const uint64_t grain = rng.one_in(3) ? cluster_bytes : rng.one_in(5) ? 1 : kSector;
    op.offset = std::min(op.offset, shape.hot_size - 1) / grain * grain;
    op.length = (op.length + grain - 1) / grain * grain;
    op.length = std::min(op.length, shape.hot_size - op.offset);
    const uint64_t kind = rng.below(100);
    op.kind = kind < 66   ? Op::Kind::write
              : kind < 70 ? Op::Kind::write_fua
              : kind < 80 ? Op::Kind::zero
              : kind < 83 ? Op::Kind::zero_no_hole
              : kind < 90 ? Op::Kind::discard
                          : Op::Kind::read;
    if (rng.one_in(flush_rate)) op.kind = Op::Kind::flush;
    if (rng.one_in(70)) op.kind = Op::Kind::reopen;
    if (rng.one_in(90)) op.kind = Op::Kind::kill;
    ops.push_back(op);
  }
  if (shape.elides) send_again(ops, shape, seed);
  return ops;
}

}  // namespace crash
