#include "qcow/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "qcow/check_walk.h"
#include "qcow/layer.h"
#include "qcow/locks.h"

namespace qcow {

namespace {

using Count = uint16_t;  // saturates; a cluster with more owners is judged as if it had this many
constexpr uint64_t kCountMax = std::numeric_limits<Count>::max();

bool is_metadata(Owner owner) {
  return owner != Owner::data && owner != Owner::compressed && owner != Owner::inactive;
}

/// One pass: the clusters of one part of the file, the references to them, their refcounts on disk.
class Pass final : public ReferenceVisitor {
 public:
  Pass(const Header& header, uint64_t first, uint64_t count, bool is_first, CheckOptions options,
       CheckResult& result)
      : geometry_(header.geometry()),
        first_(first),
        is_first_(is_first),
        options_(options),
        result_(result),
        references_(count),
        refcounts_(count),
        claims_(count) {}

  io::Task<void> run(io::File& file, const Header& header) {
    co_await read_refcounts(file, header);
    ReferenceWalk walk(file, header, *this);
    co_await walk.run();
    compare();
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
    const uint64_t last = geometry_.host_cluster_index({end - 1});
    const uint64_t from = std::max(geometry_.host_cluster_index(at), first_);
    for (uint64_t cluster = from; cluster <= last && contains(cluster); ++cluster) {
      count(cluster, owner);
    }
  }

  void on_copied_flag(HostOffset at, bool copied, uint64_t raw, Owner owner) override {
    const uint64_t cluster = geometry_.host_cluster_index(at);
    const bool outside = at.bytes >= result_.file_bytes;
    if (outside ? !is_first_ : !contains(cluster)) return;
    const uint64_t refcount = outside ? 0 : refcounts_[cluster - first_];
    if ((refcount == 1) == copied) return;
    corrupt(fmt::format("{} entry {:#x}: copied flag is {}, refcount is {}",
                        owner == Owner::l2_table ? "L1" : "L2", raw, copied ? "set" : "clear",
                        refcount));
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
  enum class Claim : uint8_t { none, compressed, exclusive };

  bool contains(uint64_t cluster) const {
    return cluster >= first_ && cluster - first_ < references_.size();
  }

  void count(uint64_t cluster, Owner owner) {
    Count& references = references_[cluster - first_];
    if (references < kCountMax) ++references;
    result_.used_end = std::max(result_.used_end, geometry_.host_offset(cluster + 1).bytes);
    if (owner == Owner::refcount_block && references != 1) {
      corrupt(fmt::format("refcount block in cluster {} has {} owners", cluster, references));
    }
    if (owner == Owner::inactive) return;
    // Compressed clusters may share a host cluster, but only among themselves.
    Claim& claim = claims_[cluster - first_];
    const bool shareable = owner == Owner::compressed && claim != Claim::exclusive;
    if (claim != Claim::none && !shareable) {
      ++result_.shared_clusters;
      note(fmt::format("host cluster {} has two owners{}", cluster,
                       is_metadata(owner) ? ", one of them metadata" : ""));
    }
    claim = shareable ? Claim::compressed : Claim::exclusive;
  }

  io::Task<void> read_refcounts(io::File& file, const Header& header) {
    const uint64_t per_block = geometry_.refcounts_per_block();
    const uint64_t end = first_ + refcounts_.size();
    const uint64_t table_entries =
        header.refcount_table_clusters * geometry_.refcount_table_entries_per_cluster();
    std::vector<std::byte> block(geometry_.cluster_bytes());
    for (uint64_t index = first_ / per_block; index * per_block < end; ++index) {
      if (index >= table_entries) break;
      std::byte word[8];
      co_await file.read(header.refcount_table.bytes + index * 8, word);
      const auto at =
          decode_refcount_table_entry(io::load_be<uint64_t>(word), geometry_.cluster_bits);
      if (!at || !*at) continue;  // refcounts of 0
      co_await file.read(at->bytes, block);
      take_refcounts(block, index * per_block, end);
    }
  }

  void take_refcounts(std::span<const std::byte> block, uint64_t block_first, uint64_t end) {
    const uint64_t block_end = std::min(block_first + geometry_.refcounts_per_block(), end);
    for (uint64_t cluster = std::max(block_first, first_); cluster < block_end; ++cluster) {
      const uint64_t refcount =
          get_refcount(block, cluster - block_first, geometry_.refcount_order);
      refcounts_[cluster - first_] = static_cast<Count>(std::min(refcount, kCountMax));
    }
  }

  void compare() {
    for (uint64_t i = 0; i < references_.size(); ++i) {
      if (references_[i] == refcounts_[i]) continue;
      const std::string text = fmt::format("host cluster {}: refcount {}, references {}",
                                           first_ + i, refcounts_[i], references_[i]);
      if (refcounts_[i] < references_[i]) {
        corrupt(text);
      } else {
        ++result_.leaks;
        note("leak: " + text);
      }
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
  uint64_t first_;
  bool is_first_;
  CheckOptions options_;
  CheckResult& result_;
  std::vector<Count> references_;
  std::vector<Count> refcounts_;
  std::vector<Claim> claims_;
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
    Pass pass(header, first, count, first == 0, options, result);
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
