// SPDX-License-Identifier: Apache-2.0
#include "qcow/check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "qcow/chain/layer.h"
#include "qcow/chain/locks.h"
#include "qcow/check/check_walk.h"

namespace qcow {

namespace {

/// What is known of one host cluster, in a byte: a file has many.
class ClusterState {
 public:
  enum class Claim : uint8_t { none, compressed, exclusive };
  static constexpr uint8_t kManyReferences = 15;

  /// So many, or kManyReferences for that many and more.
  uint8_t references() const { return bits_ & 15; }
  void add_reference() {
    if (references() < kManyReferences) ++bits_;
  }
  Claim claim() const { return static_cast<Claim>(bits_ >> 4 & 3); }
  void set_claim(Claim claim) { set(4, static_cast<uint8_t>(claim)); }
  /// The refcount on disk: 0, 1, or 2 for all above.
  uint8_t refcount_class() const { return bits_ >> 6; }
  void set_refcount(uint64_t refcount) {
    set(6, static_cast<uint8_t>(std::min<uint64_t>(refcount, 2)));
  }

 private:
  void set(uint32_t shift, uint8_t value) {
    bits_ = static_cast<uint8_t>((bits_ & ~(3 << shift)) | (value << shift));
  }
  uint8_t bits_ = 0;
};
static_assert(sizeof(ClusterState) == 1);

/// Counts the references to a part of the file without a bound.
class ReferenceCount final : public ReferenceVisitor {
 public:
  ReferenceCount(Geometry geometry, HostCluster first, uint64_t count)
      : geometry_(geometry), first_(first), counts_(count) {}
  uint64_t of(HostCluster cluster) const { return counts_[cluster - first_]; }

  void on_reference(HostOffset at, uint64_t bytes, Owner) override {
    if (bytes == 0) return;
    const HostCluster from = std::max(geometry_.cluster_of(at), first_);
    const HostCluster last = geometry_.cluster_of(HostOffset{at.bytes + bytes - 1});
    const HostCluster end = std::min(last + 1, first_ + counts_.size());
    for (HostCluster cluster = from; cluster < end; ++cluster) ++counts_[cluster - first_];
  }
  void on_copied_flag(HostOffset, bool, uint64_t, Owner) override {}
  void on_guest_cluster(const Mapping&) override {}
  void on_problem(std::string) override {}

 private:
  Geometry geometry_;
  HostCluster first_;
  std::vector<uint32_t> counts_;
};

bool is_metadata(Owner owner) {
  return owner != Owner::data && owner != Owner::compressed && owner != Owner::inactive;
}

/// One pass: the clusters of one part of the file, the references to them, their refcounts on disk.
class Pass final : public ReferenceVisitor {
 public:
  Pass(const Header& header, HostCluster first, uint64_t count, bool is_first, CheckOptions options,
       CheckResult& result)
      : geometry_(header.geometry()),
        first_(first),
        is_first_(is_first),
        options_(options),
        result_(result),
        states_(count) {}

  io::Task<void> run(io::File& file, const Header& header) {
    const EachRefcount keep = [this](HostCluster cluster, uint64_t refcount) {
      states_[cluster - first_].set_refcount(refcount);
    };
    co_await each_refcount(file, header, first_, first_ + states_.size(), keep);
    ReferenceWalk walk(file, header, result_.file_bytes, *this);
    co_await walk.run();
    const EachRefcount compare = [this](HostCluster cluster, uint64_t refcount) {
      const uint8_t references = states_[cluster - first_].references();
      if (references < ClusterState::kManyReferences) judge(cluster, refcount, references);
    };
    co_await each_refcount(file, header, first_, first_ + states_.size(), compare);
    co_await compare_crowded(file, header);
  }

  void on_reference(HostOffset at, uint64_t bytes, Owner owner) override {
    if (bytes == 0) return;
    const uint64_t end = at.bytes + bytes;
    // The file's last cluster may be short; a reference may not start behind it.
    if (end < at.bytes ||
        (end > result_.file_bytes && end - result_.file_bytes >= geometry_.cluster_bytes())) {
      if (owner == Owner::refcount_block) {
        return on_problem(fmt::format("refcount block at {:#x} is past the end of file", at.bytes));
      }
      return on_problem(fmt::format("reference to {:#x}+{} past the end of file", at.bytes, bytes));
    }
    const HostCluster last = geometry_.cluster_of(HostOffset{end - 1});
    const HostCluster from = std::max(geometry_.cluster_of(at), first_);
    for (HostCluster cluster = from; cluster <= last && contains(cluster); ++cluster) {
      count(cluster, owner);
    }
  }

  void on_copied_flag(HostOffset at, bool copied, uint64_t raw, Owner owner) override {
    const HostCluster cluster = geometry_.cluster_of(at);
    const bool outside = at.bytes >= result_.file_bytes;
    if (outside ? !is_first_ : !contains(cluster)) return;
    const uint8_t refcount = outside ? 0 : states_[cluster - first_].refcount_class();
    if ((refcount == 1) == copied) return;
    corrupt(fmt::format("{} entry {:#x}: copied flag is {}, refcount is {}{}",
                        owner == Owner::l2_table ? "L1" : "L2", raw, copied ? "set" : "clear",
                        refcount, refcount == 2 ? " or more" : ""));
  }

  void on_guest_cluster(const Mapping& mapping) override {
    if (!is_first_) return;
    if (mapping.kind == MappingKind::data) ++result_.data_clusters;
    if (mapping.kind == MappingKind::compressed) ++result_.compressed_clusters;
    if (mapping.kind == MappingKind::zero) ++result_.zero_clusters;
  }

  void on_problem(std::string text) override {
    if (is_first_) corrupt(std::move(text));
  }

 private:
  using Claim = ClusterState::Claim;
  using EachRefcount = std::function<void(HostCluster cluster, uint64_t refcount)>;

  bool contains(HostCluster cluster) const {
    return cluster >= first_ && cluster - first_ < states_.size();
  }

  void count(HostCluster cluster, Owner owner) {
    ClusterState& state = states_[cluster - first_];
    state.add_reference();
    result_.used_end = std::max(result_.used_end, geometry_.start_of(cluster + 1).bytes);
    if (owner == Owner::refcount_block && state.references() != 1) {
      corrupt(fmt::format("refcount block in cluster {} has {} owners", cluster.index,
                          state.references()));
    }
    if (owner == Owner::inactive) return;
    // Compressed clusters may share a host cluster, but only among themselves.
    const Claim claim = state.claim();
    const bool shareable = owner == Owner::compressed && claim != Claim::exclusive;
    if (claim != Claim::none && !shareable) {
      ++result_.shared_clusters;
      note(fmt::format("host cluster {} has two owners{}", cluster.index,
                       is_metadata(owner) ? ", one of them metadata" : ""));
    }
    state.set_claim(shareable ? Claim::compressed : Claim::exclusive);
  }

  /// Tells the refcount of each cluster in [from, end), in order.
  io::Task<void> each_refcount(io::File& file, const Header& header, HostCluster from,
                               HostCluster end, const EachRefcount& tell) {
    const uint64_t table_entries =
        header.refcount_table_clusters * geometry_.refcount_table_entries_per_cluster();
    std::vector<std::byte> block(geometry_.cluster_bytes());
    for (HostCluster cluster = from; cluster < end;) {
      const uint64_t index = geometry_.refcount_table_index(cluster);
      std::optional<HostOffset> at;
      if (index < table_entries) {
        std::byte word[8];
        co_await file.read(header.refcount_table.bytes + index * 8, word);
        at = decode_refcount_table_entry(io::load_be<uint64_t>(word), geometry_.cluster_bits);
      }
      const bool exists = at && *at;
      if (exists) co_await file.read(at->bytes, block);
      for (; cluster < end && geometry_.refcount_table_index(cluster) == index; ++cluster) {
        const uint64_t at_in_block = geometry_.refcount_index_in_block(cluster);
        tell(cluster, exists ? get_refcount(block, at_in_block, geometry_.refcount_order) : 0);
      }
    }
  }

  /// Those with more references than a byte can say are counted again, a part at a time.
  io::Task<void> compare_crowded(io::File& file, const Header& header) {
    const auto is_crowded = [](const ClusterState& state) {
      return state.references() == ClusterState::kManyReferences;
    };
    constexpr uint64_t kClustersAtOnce = 4 << 20;
    for (uint64_t at = 0; at < states_.size(); at += kClustersAtOnce) {
      const uint64_t count = std::min(kClustersAtOnce, states_.size() - at);
      const auto begin = states_.begin() + static_cast<ptrdiff_t>(at);
      if (std::none_of(begin, begin + static_cast<ptrdiff_t>(count), is_crowded)) continue;
      ReferenceCount references(geometry_, first_ + at, count);
      ReferenceWalk walk(file, header, result_.file_bytes, references);
      co_await walk.run();
      const EachRefcount compare = [&](HostCluster cluster, uint64_t refcount) {
        if (is_crowded(states_[cluster - first_])) judge(cluster, refcount, references.of(cluster));
      };
      co_await each_refcount(file, header, first_ + at, first_ + at + count, compare);
    }
  }

  void judge(HostCluster cluster, uint64_t refcount, uint64_t references) {
    if (references == refcount) return;
    const std::string text = fmt::format("host cluster {}: refcount {}, references {}",
                                         cluster.index, refcount, references);
    if (refcount < references) {
      corrupt(text);
    } else {
      ++result_.leaks;
      note("leak: " + text);
    }
  }

  void corrupt(std::string text) {
    ++result_.corruptions;
    note(std::move(text));
  }
  void note(std::string text) {
    if (result_.findings.size() < options_.findings_max) {
      result_.findings.push_back(std::move(text));
    } else {
      ++result_.findings_left_out;
    }
  }

  Geometry geometry_;
  HostCluster first_;
  bool is_first_;
  CheckOptions options_;
  CheckResult& result_;
  std::vector<ClusterState> states_;
};

}  // namespace

io::Task<CheckResult> check(io::File& file, std::string image_name, CheckOptions options) {
  const Header::DecodeOptions salvage{.salvage = true};
  const Header header = co_await read_header(file, image_name, salvage);
  const Geometry geometry = header.geometry();
  CheckResult result;
  result.file_bytes = co_await file.size();
  result.guest_clusters = geometry.guest_clusters();
  const uint64_t clusters = geometry.clusters_for(result.file_bytes);
  for (uint64_t first = 0; first < clusters; first += options.clusters_per_pass) {
    const uint64_t count = std::min(options.clusters_per_pass, clusters - first);
    Pass pass(header, {first}, count, first == 0, options, result);
    co_await pass.run(file, header);
  }
  co_return result;
}

io::Task<CheckResult> check(io::Runtime runtime, std::string path, CheckOptions options) {
  const std::string name = image_name_of(path);
  const std::string target = co_await io::follow_link(runtime.files, path);
  const auto file = co_await runtime.files.open(target, io::OpenMode::read_only);
  const ImageLock lock =
      co_await ImageLock::acquire_patiently(runtime, *file, LockRole::reader, name);
  co_return co_await check(*file, name, options);
}

}  // namespace qcow
