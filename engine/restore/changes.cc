// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/changes.h"

#include <algorithm>
#include <memory>

namespace engine {
namespace {

constexpr io::Duration kPageTime = std::chrono::seconds(1);
constexpr uint64_t kDirty = 1 << 0;  // of qemu:dirty-bitmap
constexpr uint64_t kZero = 1 << 1;   // of base:allocation

const nbd::MetaContext* find_context(const nbd::Export& exported, const std::string& name) {
  for (const auto& context : exported.contexts()) {
    if (context->name() == name) return context.get();
  }
  return nullptr;
}

/// Both descriptions of one range, run by run, until the shorter one ends.
class Merger {
 public:
  Merger(ChangesView& view, uint64_t offset) : view_(view), at_(offset) {}

  void add(const std::vector<nbd::StatusRun>& changed,
           const std::vector<nbd::StatusRun>& allocation) {
    auto change = changed.begin();
    auto kind = allocation.begin();
    uint64_t change_left = change->length, kind_left = kind->length;
    while (change != changed.end() && kind != allocation.end()) {
      const uint64_t part = std::min(change_left, kind_left);
      if ((change->flags & kDirty) != 0) append(part, (kind->flags & kZero) != 0);
      at_ += part;
      if ((change_left -= part) == 0 && ++change != changed.end()) change_left = change->length;
      if ((kind_left -= part) == 0 && ++kind != allocation.end()) kind_left = kind->length;
    }
  }
  uint64_t end() const { return at_; }

 private:
  void append(uint64_t length, bool zero) {
    auto& ranges = view_.ranges;
    const bool continues = !ranges.empty() && ranges.back().zero == zero &&
                           ranges.back().offset + ranges.back().length == at_;
    if (continues) {
      ranges.back().length += length;
    } else {
      ranges.push_back({at_, length, zero});
    }
  }

  ChangesView& view_;
  uint64_t at_;
};

}  // namespace

io::Task<ChangesView> read_changes(const nbd::Export& exported, ChangesQuery query) {
  ChangesView view{.backup_id = query.backup_id,
                   .since = query.since,
                   .disk_index = query.disk_id,
                   .size_bytes = exported.size()};
  const nbd::MetaContext* const allocation = find_context(exported, "base:allocation");
  const nbd::MetaContext* const changed =
      find_context(exported, "qemu:dirty-bitmap:since-" + query.since);
  const io::Runtime& runtime = exported.home();
  const io::SteadyTime end = runtime.clock.now() + kPageTime;
  Merger merger(view, query.offset);
  while (merger.end() < view.size_bytes) {
    if (view.ranges.size() >= query.limit || runtime.clock.now() >= end) {
      view.next_offset = merger.end();
      break;
    }
    const uint64_t left = view.size_bytes - merger.end();
    std::vector<const nbd::MetaContext*> contexts = {allocation};
    if (changed != nullptr) contexts.push_back(changed);
    nbd::StatusBounds bounds;
    bounds.runs_max = contexts.size() * std::max<uint64_t>(1, query.limit - view.ranges.size());
    auto answers = co_await nbd::block_status(exported.device(), std::move(contexts), merger.end(),
                                              left, false, runtime, bounds);
    if (changed == nullptr) answers.push_back({{left, kDirty}});
    merger.add(answers[1], answers[0]);
  }
  co_return view;
}

}  // namespace engine
