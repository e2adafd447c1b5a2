// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/damage.h"

#include <fmt/format.h>

#include <array>

#include "io/big_endian.h"
#include "qcow/format/entries.h"
#include "qcow/format/header.h"

namespace crash {

namespace {

constexpr std::array kDamageNames = {"zeroed sector", "noisy sector",     "flipped bits",
                                     "low refcount",  "high refcount",    "another word",
                                     "cleared seal",  "unreadable sector"};
constexpr std::array kPartNames = {"data",           "header", "refcount table",
                                   "refcount block", "L1",     "L2"};
constexpr uint64_t kAutoclearField = 88, kClusterBitsField = 20, kRefcountOrderField = 96;

uint32_t half_at(const Bytes& file, uint64_t at) { return io::load_be<uint32_t>(&file[at]); }

/// A sector of the file that belongs to `part`; nothing when there is none.
std::optional<uint64_t> sector_of(const Parts& parts, FileId id, const Bytes& file, Part part,
                                  Rng& rng) {
  std::vector<uint64_t> sectors;
  for (uint64_t at = 0; at + kSector <= file.size(); at += kSector) {
    if (parts.at(id, at) == part) sectors.push_back(at);
  }
  if (sectors.empty()) return std::nullopt;
  return sectors[rng.below(sectors.size())];
}

/// A word of the sector that is in use, where there is one.
uint64_t word_of(const Bytes& file, uint64_t sector, Rng& rng) {
  std::vector<uint64_t> used;
  for (uint64_t at = sector; at < sector + kSector; at += 8) {
    if (io::load_be<uint64_t>(&file[at]) != 0) used.push_back(at);
  }
  return used.empty() ? sector + 8 * rng.below(kSector / 8) : used[rng.below(used.size())];
}

void flip_bits(Bytes& file, uint64_t sector, Rng& rng) {
  for (uint64_t bits = rng.between(1, 3); bits > 0; --bits) {
    const uint64_t at = word_of(file, sector, rng) + rng.below(8);
    file[at] ^= std::byte(1u << rng.below(8));
  }
}

/// One refcount of the block that `sector` belongs to.
void change_refcount(Bytes& file, uint64_t sector, bool up, Rng& rng) {
  const uint32_t order = half_at(file, kRefcountOrderField);
  const uint64_t bytes_each = std::max<uint64_t>(1, (uint64_t{1} << order) / 8);
  const auto block = std::span(file).subspan(sector, kSector);
  std::vector<uint64_t> used;
  for (uint64_t i = 0; i < kSector / bytes_each; ++i) {
    if (qcow::get_refcount(block, i, order) > 0) used.push_back(i);
  }
  if (used.empty()) return;
  const uint64_t index = used[rng.below(used.size())];
  const uint64_t now = qcow::get_refcount(block, index, order);
  qcow::set_refcount(block, index, order, up ? now + 1 : rng.one_in(2) ? now - 1 : 0);
}

/// An entry becomes one that points elsewhere, or one that no program writes.
void change_word(Bytes& file, uint64_t sector, Rng& rng) {
  const uint64_t at = word_of(file, sector, rng);
  const uint64_t clusters = file.size() >> half_at(file, kClusterBitsField);
  const uint64_t elsewhere = rng.below(2 * clusters) << half_at(file, kClusterBitsField);
  const uint64_t copied = rng.one_in(2) ? qcow::kEntryCopied : 0;
  const uint64_t word = rng.one_in(3) ? rng.next() : elsewhere | copied | rng.below(2);
  io::store_be(&file[at], word);
}

DamageKind kind_for(Part part, Rng& rng) {
  using enum DamageKind;
  if (part == Part::header && rng.one_in(2)) return cleared_seal;
  const bool refcounts = part == Part::refcount_block;
  if (refcounts && rng.one_in(2)) return rng.one_in(4) ? high_refcount : low_refcount;
  const bool entries = part == Part::l1 || part == Part::l2 || part == Part::refcount_table;
  if (entries && rng.one_in(2)) return entry_word;
  constexpr std::array kAnywhere = {zeroed_sector, noisy_sector, flipped_bits, flipped_bits,
                                    unreadable};
  return kAnywhere[rng.below(kAnywhere.size())];
}

void damage_sector(Bytes& file, const Damage& damage, Rng& rng) {
  switch (damage.kind) {
    case DamageKind::zeroed_sector:
      std::fill_n(file.begin() + static_cast<ptrdiff_t>(damage.at), kSector, std::byte{0});
      return;
    case DamageKind::noisy_sector:
      for (uint64_t i = 0; i < kSector; i += 8) io::store_be(&file[damage.at + i], rng.next());
      return;
    case DamageKind::flipped_bits:
      return flip_bits(file, damage.at, rng);
    case DamageKind::low_refcount:
    case DamageKind::high_refcount:
      return change_refcount(file, damage.at, damage.kind == DamageKind::high_refcount, rng);
    case DamageKind::entry_word:
      return change_word(file, damage.at, rng);
    case DamageKind::cleared_seal:
      io::store_be<uint64_t>(&file[kAutoclearField], 0);
      return;
    case DamageKind::unreadable:
      return;
  }
}

}  // namespace

std::string Damage::text() const {
  return fmt::format("{} in the {} at {}", kDamageNames[static_cast<size_t>(kind)],
                     kPartNames[static_cast<size_t>(part)], at);
}

Damage do_damage(State& state, const std::string& path, Rng& rng) {
  constexpr std::array kParts = {Part::header,
                                 Part::refcount_table,
                                 Part::refcount_block,
                                 Part::refcount_block,
                                 Part::l1,
                                 Part::l2,
                                 Part::l2};
  const FileId id = state.names.at(path).file;
  const Parts parts(state);
  Bytes file = *state.files.at(id);
  file.resize(sector_up(file.size()));
  for (;;) {
    Damage damage{.part = kParts[rng.below(kParts.size())]};
    const auto sector = sector_of(parts, id, file, damage.part, rng);
    if (!sector) continue;
    damage.at = *sector;
    damage.kind = kind_for(damage.part, rng);
    if (damage.kind == DamageKind::cleared_seal) damage.at = 0;
    damage_sector(file, damage, rng);
    state.put(path, std::move(file));
    return damage;
  }
}

}  // namespace crash
