// SPDX-License-Identifier: Apache-2.0
#include "engine/care/lasting_damage.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

namespace engine {
namespace {

using Ranges = std::vector<ClusterRange>;

constexpr uint64_t kTableClusters = HeldContent::kTableClusters;

std::set<uint64_t> tables_of(const Ranges& ranges) {
  std::set<uint64_t> tables;
  for (const ClusterRange& range : ranges) {
    for (uint64_t at = range.first / kTableClusters; at * kTableClusters < range.end; ++at) {
      tables.insert(at);
    }
  }
  return tables;
}

/// The part of `ranges` in [first, end).
Ranges within(const Ranges& ranges, uint64_t first, uint64_t end) {
  Ranges part;
  for (const ClusterRange& range : ranges) {
    const ClusterRange cut{std::max(range.first, first), std::min(range.end, end)};
    if (cut.first < cut.end) part.push_back(cut);
  }
  return part;
}

class DamageSearch {
 public:
  DamageSearch(io::Runtime data, std::vector<ProvenImage> chain, uint64_t clusters_max)
      : data_(data),
        chain_(std::move(chain)),
        clusters_max_(clusters_max),
        opened_(chain_.size()),
        left_(chain_.size()) {}

  io::Task<LastingDamage> run() {
    found_.healed_at.assign(chain_.size(), chain_.size());
    for (size_t at = 0; at < chain_.size(); ++at) {
      co_await take_what_is_newer(at);
      left_[at] = joined(chain_[at].damaged);
    }
    for (const Ranges& ranges : left_) {
      found_.newest.insert(found_.newest.end(), ranges.begin(), ranges.end());
    }
    found_.newest = joined(std::move(found_.newest));
    Ranges first = found_.newest;
    found_.truncated = !cut_to(first, clusters_max_);
    for (const uint64_t table : tables_of(first)) {
      co_await find_lost(table,
                         within(first, table * kTableClusters, (table + 1) * kTableClusters));
    }
    co_return std::move(found_);
  }

 private:
  /// False when it had more.
  static bool cut_to(Ranges& ranges, uint64_t clusters) {
    for (auto range = ranges.begin(); range != ranges.end(); ++range) {
      const uint64_t count = std::min(range->end - range->first, clusters);
      clusters -= count;
      if (count == range->end - range->first) continue;
      range->end = range->first + count;
      ranges.erase(count == 0 ? range : range + 1, ranges.end());
      return false;
    }
    return true;
  }

  io::Task<HeldContent*> held(size_t at) {
    if (!opened_[at]) opened_[at] = co_await HeldContent::open(data_, chain_[at].path);
    co_return opened_[at].get();
  }

  /// What is damaged below image `at` and is stored or zeroed by it.
  io::Task<void> take_what_is_newer(size_t at) {
    std::set<uint64_t> tables;
    for (size_t below = 0; below < at; ++below) tables.merge(tables_of(left_[below]));
    if (tables.empty()) co_return;
    HeldContent* const image = co_await held(at);
    Ranges taken;
    for (const uint64_t table : tables) {
      const std::vector<HeldRun> runs = co_await image->of_table(table);
      for (const HeldRun& run : runs) taken.push_back(run.clusters);
    }
    for (size_t below = 0; below < at; ++below) {
      if (left_[below].empty()) continue;
      left_[below] = without(left_[below], taken);
      if (left_[below].empty()) found_.healed_at[below] = at;
    }
  }

  /// The newest image that says anything of a cluster says what should be in it; where none does,
  /// the disk was never written to.
  io::Task<void> find_lost(uint64_t table, Ranges clusters) {
    std::vector<LostRun> lost;
    for (size_t at = chain_.size(); at-- > 0 && !clusters.empty();) {
      HeldContent* const image = co_await held(at);
      Ranges said;
      const std::vector<HeldRun> runs = co_await image->of_table(table);
      for (const HeldRun& run : runs) {
        for (const ClusterRange& part : within(clusters, run.clusters.first, run.clusters.end)) {
          LostRun one{.clusters = part, .zero = run.zero};
          if (!run.sums.empty()) {
            const auto first =
                run.sums.begin() + static_cast<ptrdiff_t>(part.first - run.clusters.first);
            one.sums.assign(first, first + static_cast<ptrdiff_t>(part.end - part.first));
          }
          lost.push_back(std::move(one));
        }
        said.push_back(run.clusters);
      }
      clusters = without(clusters, said);
    }
    for (const ClusterRange& range : clusters) lost.push_back({.clusters = range, .zero = true});
    std::ranges::sort(lost, {}, [](const LostRun& run) { return run.clusters.first; });
    for (LostRun& run : lost) append(std::move(run));
  }

  void append(LostRun run) {
    if (!found_.lost.empty()) {
      LostRun& last = found_.lost.back();
      if (last.clusters.end == run.clusters.first && last.zero == run.zero &&
          last.sums.empty() == run.sums.empty()) {
        last.clusters.end = run.clusters.end;
        last.sums.insert(last.sums.end(), run.sums.begin(), run.sums.end());
        return;
      }
    }
    found_.lost.push_back(std::move(run));
  }

  const io::Runtime data_;
  const std::vector<ProvenImage> chain_;
  const uint64_t clusters_max_;
  std::vector<std::unique_ptr<HeldContent>> opened_;
  std::vector<Ranges> left_;  // of each image's damage, what the images after it have not stored
  LastingDamage found_;
};

}  // namespace

std::vector<ClusterRange> joined(std::vector<ClusterRange> ranges) {
  std::ranges::sort(ranges, {}, &ClusterRange::first);
  Ranges joined;
  for (const ClusterRange& range : ranges) {
    if (!joined.empty() && range.first <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, range.end);
    } else if (range.first < range.end) {
      joined.push_back(range);
    }
  }
  return joined;
}

std::vector<ClusterRange> without(const std::vector<ClusterRange>& ranges,
                                  const std::vector<ClusterRange>& taken) {
  Ranges left;
  auto cut = taken.begin();
  for (ClusterRange range : ranges) {
    while (cut != taken.end() && cut->end <= range.first) ++cut;
    for (auto next = cut; next != taken.end() && next->first < range.end; ++next) {
      if (range.first < next->first) left.push_back({range.first, next->first});
      range.first = std::min(range.end, std::max(range.first, next->end));
    }
    if (range.first < range.end) left.push_back(range);
  }
  return left;
}

io::Task<LastingDamage> lasting_damage(io::Runtime data, std::vector<ProvenImage> chain,
                                       uint64_t clusters_max) {
  DamageSearch search(data, std::move(chain), clusters_max);
  co_return co_await search.run();
}

}  // namespace engine
