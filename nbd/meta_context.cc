// SPDX-License-Identifier: Apache-2.0
#include "nbd/meta_context.h"

#include <algorithm>

#include "io/sync.h"

namespace nbd {
namespace {

// Flags of base:allocation. Spec: "Metadata querying", "base:allocation metadata context".
constexpr uint64_t kStateHole = 1 << 0;
constexpr uint64_t kStateZero = 1 << 1;

/// Appends `run` to `runs`, as part of the last one when they are alike.
void append_run(std::vector<StatusRun>& runs, const StatusRun& run) {
  if (!runs.empty() && runs.back().flags == run.flags) {
    runs.back().length += run.length;
  } else {
    runs.push_back(run);
  }
}

/// A context whose value follows from an extent's kind alone.
class ExtentContext final : public MetaContext {
 public:
  using Value = uint64_t (*)(const io::Extent&);
  ExtentContext(std::string_view name, Value value) : name_(name), value_(value) {}

  std::string_view name() const override { return name_; }
  void describe(uint64_t, const io::Extent& extent, std::vector<StatusRun>& runs) const override {
    append_run(runs, {extent.length, value_(extent)});
  }

 private:
  std::string_view name_;
  Value value_;
};

uint64_t allocation_flags(const io::Extent& extent) {
  return extent.zero || extent.depth == 0 ? kStateHole | kStateZero : 0;
}

uint64_t allocation_depth(const io::Extent& extent) { return extent.depth; }

/// What changed since an ancestor, which answers at depth `newer_layers` + 1. The topmost layer
/// that holds anything answers, so a newer layer holds an entry just where a newer one answers.
class ChangeContext final : public MetaContext {
 public:
  ChangeContext(const std::string& point, uint32_t newer_layers, uint64_t common_bytes)
      : name_("qemu:dirty-bitmap:since-" + point),
        newer_layers_(newer_layers),
        common_bytes_(common_bytes) {}

  std::string_view name() const override { return name_; }
  void describe(uint64_t offset, const io::Extent& extent,
                std::vector<StatusRun>& runs) const override {
    const bool newer = extent.depth >= 1 && extent.depth <= newer_layers_;
    const uint64_t common =
        std::min(extent.length, common_bytes_ - std::min(common_bytes_, offset));
    if (common > 0) append_run(runs, {common, newer ? kDirty : 0});
    if (common < extent.length) append_run(runs, {extent.length - common, kDirty});
  }

 private:
  static constexpr uint64_t kDirty = 1 << 0;
  std::string name_;
  uint32_t newer_layers_;
  uint64_t common_bytes_;  // all layers from the point to below the exported one are that long
};

/// True when `query` ends in a colon and is all of the name's front, as `qemu:dirty-bitmap:` is.
bool is_wildcard_for(std::string_view query, std::string_view name) {
  return query.ends_with(':') && name.starts_with(query);
}

template <class Selects>
std::vector<size_t> indices_where(const MetaContexts& contexts,
                                  std::span<const std::string> queries, Selects selects) {
  std::vector<size_t> chosen;
  for (size_t index = 0; index < contexts.size(); ++index) {
    const std::string_view name = contexts[index]->name();
    if (std::ranges::any_of(queries, [&](const auto& query) { return selects(query, name); })) {
      chosen.push_back(index);
    }
  }
  return chosen;
}

}  // namespace

MetaContexts allocation_contexts() {
  return {std::make_shared<ExtentContext>("base:allocation", allocation_flags),
          std::make_shared<ExtentContext>("qemu:allocation-depth", allocation_depth)};
}

MetaContexts change_contexts(std::span<const Ancestor> ancestors) {
  MetaContexts contexts;
  uint32_t newer_layers = 0;
  uint64_t common_bytes = ~uint64_t{0};
  for (const Ancestor& ancestor : ancestors) {
    ++newer_layers;
    common_bytes = std::min(common_bytes, ancestor.bytes);
    if (ancestor.point.empty()) continue;
    contexts.push_back(std::make_shared<ChangeContext>(ancestor.point, newer_layers, common_bytes));
  }
  return contexts;
}

MetaContexts changed_entirely(std::span<const std::string> points) {
  MetaContexts contexts;
  for (const std::string& point : points) {
    contexts.push_back(std::make_shared<ChangeContext>(point, 0, 0));
  }
  return contexts;
}

std::vector<size_t> select_contexts(const MetaContexts& contexts,
                                    std::span<const std::string> queries) {
  return indices_where(contexts, queries,
                       [](std::string_view query, std::string_view name) { return query == name; });
}

std::vector<size_t> list_contexts(const MetaContexts& contexts,
                                  std::span<const std::string> queries) {
  static const std::string kEverything;
  if (queries.empty()) queries = {&kEverything, 1};
  return indices_where(contexts, queries, [](std::string_view query, std::string_view name) {
    return query == name || query.empty() || is_wildcard_for(query, name);
  });
}

io::Task<std::vector<std::vector<StatusRun>>> block_status(io::BlockDevice& device,
                                                           std::vector<const MetaContext*> contexts,
                                                           uint64_t offset, uint64_t length,
                                                           bool one, io::Runtime runtime,
                                                           StatusBounds bounds) {
  // Asked of the device between two looks at the clock.
  constexpr size_t kExtentsAtOnce = 1024;
  constexpr uint64_t kBytesAtOnce = uint64_t{16} << 30;
  const io::SteadyTime started = runtime.clock.now();
  const size_t runs_max =
      one ? 1 : std::max<size_t>(1, bounds.runs_max / std::max<size_t>(1, contexts.size()));
  std::vector<std::vector<StatusRun>> answers(contexts.size());
  // The run after the last one that is wanted shows where that one ends.
  const auto has_enough = [&](const auto& runs) { return runs.size() > runs_max; };
  for (const uint64_t end = offset + length; offset < end;) {
    const std::vector<io::Extent> extents =
        co_await device.extents(offset, std::min(end - offset, kBytesAtOnce), kExtentsAtOnce);
    for (const io::Extent& extent : extents) {
      for (size_t index = 0; index < contexts.size(); ++index) {
        contexts[index]->describe(offset, extent, answers[index]);
      }
      offset += extent.length;
    }
    const bool enough =
        one ? std::ranges::all_of(answers, has_enough) : std::ranges::any_of(answers, has_enough);
    if (enough || runtime.clock.now() - started >= bounds.work_max) break;
    co_await io::NextTurn{runtime.executor};
  }
  for (std::vector<StatusRun>& runs : answers) runs.resize(std::min(runs.size(), runs_max));
  co_return answers;
}

}  // namespace nbd
