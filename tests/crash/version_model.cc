// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/version_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace crash {

VersionModel::VersionModel(Bytes content) : content_(std::move(content)) {
  sectors_.resize(sector_up(content_.size()) / kSector);
  busy_.resize(sectors_.size());
  for (uint64_t s = 0; s < sectors_.size(); ++s) {
    sectors_[s].push_back({hash(sector_of(content_, s)), 0, 0, 0});
  }
}

uint64_t VersionModel::hash(std::span<const std::byte> sector) {
  uint64_t state = sector.size();
  for (size_t at = 0; at < sector.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, sector.data() + at, std::min<size_t>(8, sector.size() - at));
    state = (state ^ word) * 0x9fb21c651e98df25;
    state ^= state >> 32;
  }
  return state;
}

std::span<const std::byte> VersionModel::sector_of(const Bytes& bytes, uint64_t sector) const {
  const uint64_t at = sector * kSector;
  return std::span(bytes).subspan(at, std::min(kSector, bytes.size() - at));
}

uint64_t VersionModel::begin(uint64_t now, uint64_t offset, std::span<const std::byte> bytes) {
  std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(offset));
  Change change{offset / kSector, sector_up(offset + bytes.size()) / kSector};
  for (uint64_t s = change.first; s < change.end; ++s) {
    busy_[s] = true;
    change.version.push_back(static_cast<uint32_t>(sectors_[s].size()));
    if (!sectors_[s].empty()) sectors_[s].push_back({hash(sector_of(content_, s)), now});
  }
  changes_.push_back(std::move(change));
  return changes_.size() - 1;
}

void VersionModel::release(const Change& change) {
  for (uint64_t s = change.first; s < change.end; ++s) busy_[s] = false;
}

void VersionModel::acknowledged(uint64_t now, uint64_t change) {
  const Change& of = changes_[change];
  release(of);
  for (uint64_t s = of.first; s < of.end; ++s) {
    if (!sectors_[s].empty()) sectors_[s][of.version[s - of.first]].acknowledged = now;
  }
}

void VersionModel::failed(uint64_t change) { release(changes_[change]); }

void VersionModel::durable(uint64_t now, uint64_t change) {
  const Change& of = changes_[change];
  for (uint64_t s = of.first; s < of.end; ++s) {
    if (!sectors_[s].empty()) sectors_[s][of.version[s - of.first]].durable = now;
  }
}

void VersionModel::flushed(uint64_t sent, uint64_t answered) {
  flushes_.push_back({sent, answered});
}

bool VersionModel::busy(uint64_t offset, uint64_t length) const {
  for (uint64_t s = offset / kSector; s * kSector < offset + length; ++s) {
    if (busy_[s]) return true;
  }
  return false;
}

void VersionModel::ignore(uint64_t offset, uint64_t length) {
  for (uint64_t s = offset / kSector; s * kSector < offset + length; ++s) sectors_[s].clear();
}

void VersionModel::restarted(uint64_t now, const Bytes& found) {
  content_ = found;
  std::fill(busy_.begin(), busy_.end(), false);
  for (uint64_t s = 0; s < sectors_.size(); ++s) {
    if (sectors_[s].empty()) continue;
    const uint64_t now_there = hash(sector_of(found, s));
    if (sectors_[s].back().hash != now_there) sectors_[s].push_back({now_there, now, now});
    // What is read now was accepted, as far as later flushes go.
    if (sectors_[s].back().acknowledged == kNever) sectors_[s].back().acknowledged = now;
  }
}

uint64_t VersionModel::last_flush_sent(uint64_t cut) const {
  uint64_t sent = 0;
  for (const Flush& flush : flushes_) {
    if (flush.answered <= cut) sent = std::max(sent, flush.sent);
  }
  return sent;
}

uint64_t VersionModel::promises(uint64_t cut) const { return last_flush_sent(cut); }

std::optional<std::string> VersionModel::judge(const Bytes& found, uint64_t cut) const {
  const uint64_t flush_sent = last_flush_sent(cut);
  for (uint64_t s = 0; s < sectors_.size(); ++s) {
    const std::vector<Version>& versions = sectors_[s];
    if (versions.empty()) continue;
    const uint64_t there = hash(sector_of(found, s));
    bool older = false, promised = false;
    size_t v = versions.size();
    while (v-- > 0) {
      const Version& version = versions[v];
      if (version.sent > cut) continue;
      if (version.hash == there && !promised) break;
      if (version.hash == there) older = true;
      promised |= version.acknowledged <= flush_sent || version.durable <= cut;
    }
    if (v != size_t(-1)) continue;
    return fmt::format(
        "{}: the sector at {} holds {}", older ? "LOST" : "TORN", s * kSector,
        older ? "a version older than the last one flushed" : "no version that it ever had");
  }
  return std::nullopt;
}

}  // namespace crash
