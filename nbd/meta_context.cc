#include "nbd/meta_context.h"

#include <algorithm>

namespace nbd {
namespace {

// Flags of base:allocation. Spec: "Metadata querying", "base:allocation metadata context".
constexpr uint64_t kStateHole = 1 << 0;
constexpr uint64_t kStateZero = 1 << 1;

/// A context that follows from io::BlockDevice::extents alone.
class ExtentContext final : public MetaContext {
 public:
  using Value = uint64_t (*)(const io::Extent&);
  ExtentContext(io::BlockDevice& device, std::string_view name, Value value)
      : device_(device), name_(name), value_(value) {}

  std::string_view name() const override { return name_; }

  io::Task<std::vector<StatusRun>> describe(uint64_t offset, uint64_t length,
                                            size_t count_max) override {
    const std::vector<io::Extent> extents = co_await device_.extents(offset, length, count_max);
    std::vector<StatusRun> runs;
    runs.reserve(extents.size());
    for (const io::Extent& extent : extents) runs.push_back({extent.length, value_(extent)});
    co_return runs;
  }

 private:
  io::BlockDevice& device_;
  std::string_view name_;
  Value value_;
};

uint64_t allocation_flags(const io::Extent& extent) {
  return extent.zero || extent.depth == 0 ? kStateHole | kStateZero : 0;
}

uint64_t allocation_depth(const io::Extent& extent) { return extent.depth; }

/// True when `query` ends in a colon and is all of the name's front, as `qemu:dirty-bitmap:` is.
bool is_wildcard_for(std::string_view query, std::string_view name) {
  return query.ends_with(':') && name.starts_with(query);
}

template <class Selects>
std::vector<size_t> indices_where(std::span<const std::shared_ptr<MetaContext>> contexts,
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

/// Adds `run` behind `runs`, as part of the last one when they are alike.
void append_run(std::vector<StatusRun>& runs, const StatusRun& run) {
  if (!runs.empty() && runs.back().flags == run.flags) {
    runs.back().length += run.length;
  } else {
    runs.push_back(run);
  }
}

}  // namespace

std::vector<std::shared_ptr<MetaContext>> allocation_contexts(io::BlockDevice& device) {
  return {std::make_shared<ExtentContext>(device, "base:allocation", allocation_flags),
          std::make_shared<ExtentContext>(device, "qemu:allocation-depth", allocation_depth)};
}

std::vector<size_t> select_contexts(std::span<const std::shared_ptr<MetaContext>> contexts,
                                    std::span<const std::string> queries) {
  return indices_where(contexts, queries,
                       [](std::string_view query, std::string_view name) { return query == name; });
}

std::vector<size_t> list_contexts(std::span<const std::shared_ptr<MetaContext>> contexts,
                                  std::span<const std::string> queries) {
  static const std::string kEverything;
  if (queries.empty()) queries = {&kEverything, 1};
  return indices_where(contexts, queries, [](std::string_view query, std::string_view name) {
    return query == name || query.empty() || is_wildcard_for(query, name);
  });
}

io::Task<std::vector<StatusRun>> block_status(MetaContext& context, uint64_t offset,
                                              uint64_t length, bool one, const io::Clock& clock,
                                              StatusBounds bounds) {
  constexpr size_t kRunsAtOnce = 1024;  // asked of the device between two looks at the clock
  const io::SteadyTime started = clock.now();
  std::vector<StatusRun> runs;
  uint64_t covered = 0;
  while (covered < length) {
    const size_t room = std::min(kRunsAtOnce, bounds.runs_max + 1 - runs.size());
    const std::vector<StatusRun> more =
        co_await context.describe(offset + covered, length - covered, room);
    for (const StatusRun& run : more) {
      append_run(runs, run);
      covered += run.length;
    }
    // The run after the last one that is wanted shows where that one ends.
    if (one && runs.size() > 1) break;
    if (runs.size() > bounds.runs_max || clock.now() - started >= bounds.work_max) break;
  }
  if (runs.size() > (one ? 1 : bounds.runs_max)) runs.resize(one ? 1 : bounds.runs_max);
  co_return runs;
}

}  // namespace nbd
