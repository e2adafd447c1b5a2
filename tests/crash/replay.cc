// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace crash {

namespace {

void move_directory(const Event& event, State& state) {
  if (event.renamed_to.empty()) return;
  state.directories.erase(event.renamed_from);
  state.directories.insert(event.renamed_to);
}

}  // namespace

Replay::Replay(const State& start, const std::vector<Event>& log) : log_(log), durable_(start) {
  for (const auto& [file, bytes] : start.files) files_[file].shared = bytes;
}

Replay::Change* Replay::find(uint64_t operation) {
  const auto found = std::find_if(changes_.begin(), changes_.end(), [&](const Change& change) {
    return change.event->operation == operation;
  });
  return found == changes_.end() ? nullptr : &*found;
}

void Replay::advance() {
  const Event& event = log_[position_++];
  switch (event.kind) {
    case Event::Kind::names:
      for (const auto& [path, node] : event.changes) {
        if (node.file != kNoFile) files_.try_emplace(node.file);
      }
      [[fallthrough]];
    case Event::Kind::write:
    case Event::Kind::truncate:
    case Event::Kind::grow:
      changes_.push_back({&event});
      break;
    case Event::Kind::sync:
    case Event::Kind::sync_names:
      sync_begins(event);
      break;
    case Event::Kind::done:
      if (Change* const change = find(event.operation)) change->done = true;
      if (const auto sync = syncs_.find(event.operation); sync != syncs_.end()) {
        sync_done(sync->second);
        syncs_.erase(sync);
      }
      break;
    case Event::Kind::dropped_sync:
      for (const uint64_t operation : syncs_.at(event.operation)) {
        if (Change* const change = find(operation)) change->given_up = true;
      }
      syncs_.erase(event.operation);
      break;
    case Event::Kind::failed:
      break;  // stays, as one that may be there in part
    case Event::Kind::directory:
      durable_.directories.insert(event.directory);
      break;
    case Event::Kind::catalogue:
      ++durable_.catalogue;
      break;
  }
}

void Replay::sync_begins(const Event& event) {
  std::vector<uint64_t>& covered = syncs_[event.operation];
  for (const Change& change : changes_) {
    if (!change.done || change.given_up) continue;
    const bool meant = event.kind == Event::Kind::sync
                           ? !change.is_names() && change.event->file == event.file
                           : change.is_names() && change.event->directory == event.directory;
    if (meant) covered.push_back(change.event->operation);
  }
}

void Replay::sync_done(const std::vector<uint64_t>& covered) {
  const auto is_covered = [&](const Change& change) {
    // A failed sync may have given it up since.
    return !change.given_up &&
           std::binary_search(covered.begin(), covered.end(), change.event->operation);
  };
  for (const Change& change : changes_) {
    if (is_covered(change)) settle(change);
  }
  std::erase_if(changes_, is_covered);
}

/// The change is on the disk for certain.
void Replay::settle(const Change& change) {
  const Event& event = *change.event;
  if (change.is_names()) {
    for (const auto& [path, node] : event.changes) {
      if (node.gone()) {
        durable_.names.erase(path);
      } else {
        durable_.names[path] = node;
      }
    }
    move_directory(event, durable_);
    return;
  }
  Durable& file = files_[event.file];
  if (file.shared) file.bytes = *file.shared;
  file.shared.reset();
  Rng none(0);
  apply(change, Fate::kept, file, none, file.bytes);
  if (event.kind == Event::Kind::truncate) file.truncate_operation = event.operation;
  if (!change.is_write()) return;
  const uint64_t end = sector_up(event.end) / kSector;
  if (file.sector_operation.size() < end) file.sector_operation.resize(end);
  for (uint64_t s = event.offset / kSector; s < end; ++s) {
    file.sector_operation[s] = std::max(file.sector_operation[s], event.operation);
  }
}

void Replay::apply(const Change& change, Fate fate, const Durable& durable, Rng& rng,
                   Bytes& content) {
  const Event& event = *change.event;
  if (event.kind == Event::Kind::truncate) content.resize(event.end);
  if (event.kind == Event::Kind::grow) {
    content.resize(std::max<uint64_t>(content.size(), event.end));
  }
  if (!change.is_write()) return;
  for (uint64_t at = event.offset; at < event.end; at += kSector) {
    if (fate == Fate::torn && rng.one_in(2)) continue;
    const uint64_t sector = at / kSector;
    // A later write that is durable has taken its place.
    const auto& settled = durable.sector_operation;
    if (sector < settled.size() && settled[sector] > event.operation) continue;
    const uint64_t end = std::min(at + kSector, event.end);
    if (content.size() < end) {
      if (event.operation < durable.truncate_operation) continue;  // cut off since
      content.resize(end);
    }
    // The sector's bytes behind the write's end are the file's own.
    const uint64_t length = std::min<uint64_t>(kSector, content.size() - at);
    std::copy_n(event.bytes.begin() + static_cast<ptrdiff_t>(at - event.offset), length,
                content.begin() + static_cast<ptrdiff_t>(at));
  }
}

namespace {

enum class Kind : uint8_t {
  none,
  all,
  prefix,
  newest,
  some,
  few,
  most,
  drop_one,
  keep_one,
  metadata,
  data,
  l2,
  torn
};
constexpr std::array kCutNames = {"none", "all",     "a prefix", "the newest", "some",
                                  "few",  "most",    "drop one", "keep one",   "metadata",
                                  "data", "L2 only", "torn"};

bool keeps(Kind kind, size_t at, size_t count, size_t one, Part part, Rng& rng) {
  switch (kind) {
    case Kind::none:
      return false;
    case Kind::all:
      return true;
    case Kind::prefix:
      return at < one;
    case Kind::newest:
      return at >= one;
    case Kind::some:
      return rng.one_in(2);
    case Kind::few:
      return rng.one_in(8);
    case Kind::most:
      return !rng.one_in(8);
    case Kind::drop_one:
      return at != one;
    case Kind::keep_one:
      return at == one;
    case Kind::metadata:
      return part != Part::data;
    case Kind::data:
      return part == Part::data;
    case Kind::l2:
      return part == Part::l2;
    case Kind::torn:
      return true;
  }
  return at < count;
}

}  // namespace

std::vector<Replay::Fate> Replay::pick(Rng& rng, const Parts& parts, std::string& told) const {
  const Kind kind = static_cast<Kind>(rng.below(kCutNames.size()));
  const bool some_torn = kind == Kind::torn || rng.one_in(4);
  const size_t one = rng.below(changes_.size());
  std::vector<Fate> fates;
  size_t kept = 0;
  for (size_t i = 0; i < changes_.size(); ++i) {
    const Event& event = *changes_[i].event;
    const Part part = changes_[i].is_write() ? parts.at(event.file, event.offset) : Part::header;
    const bool keep = keeps(kind, i, changes_.size(), one, part, rng);
    const bool torn = some_torn && rng.one_in(2);
    fates.push_back(!keep ? Fate::lost : torn ? Fate::torn : Fate::kept);
    kept += keep ? 1 : 0;
  }
  told = fmt::format("{} ({} of {} uncovered changes{})", kCutNames[static_cast<size_t>(kind)],
                     kept, changes_.size(), some_torn ? ", some torn" : "");
  return fates;
}

State Replay::build(Rng& rng, const Parts& parts, std::string& told) const {
  const std::vector<Fate> fates = pick(rng, parts, told);
  const bool sizes_lost = rng.one_in(4);
  if (sizes_lost) told += ", lengths lost";
  State state;
  state.names = durable_.names;
  state.directories = durable_.directories;
  state.catalogue = durable_.catalogue;
  std::map<FileId, Bytes> changed;
  for (size_t i = 0; i < changes_.size(); ++i) {
    const Change& change = changes_[i];
    if (fates[i] == Fate::lost) continue;
    if (change.is_names()) {
      for (const auto& [path, node] : change.event->changes) {
        if (node.gone()) {
          state.names.erase(path);
        } else {
          state.names[path] = node;
        }
      }
      move_directory(*change.event, state);
      continue;
    }
    const Durable& file = files_.at(change.event->file);
    const auto [entry, fresh] = changed.try_emplace(change.event->file);
    if (fresh) entry->second = file.shared ? *file.shared : file.bytes;
    apply(change, fates[i], file, rng, entry->second);
  }
  for (const auto& [id, file] : files_) {
    const auto own = changed.find(id);
    const size_t durable_size = file.shared ? file.shared->size() : file.bytes.size();
    if (own == changed.end()) {
      state.files[id] = file.shared ? file.shared : std::make_shared<const Bytes>(file.bytes);
    } else {
      if (sizes_lost) own->second.resize(durable_size);
      state.files[id] = std::make_shared<const Bytes>(std::move(own->second));
    }
    state.files_ever = std::max(state.files_ever, id);
  }
  return state;
}

}  // namespace crash
