// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <functional>

#include "io/planted_bug.h"

namespace qcow {

namespace {

/// What the tables name, found by reading all of them: three bits for each cluster of the file.
struct Usage {
  std::vector<bool> named;   // host clusters
  std::vector<bool> owned;   // by an entry that says it is the only one
  std::vector<bool> shared;  // by several entries; empty when there is no such cluster
  uint64_t exclusive = 0;    // clusters of L2 tables and data with a refcount of one
  bool sound = true;         // every entry could be read
  bool two_owners = false;
  std::optional<HostCluster> past_end;  // a cluster behind the file and behind all refcounts

  explicit Usage(uint64_t clusters) : named(clusters), owned(clusters) {}

  void name(HostCluster cluster, bool is_exclusive) {
    const uint64_t at = cluster.index;
    if (at >= named.size()) {
      past_end = cluster;
      return;
    }
    if (named[at]) {
      if (is_exclusive || owned[at]) two_owners = true;
      shared.resize(named.size());
      shared[at] = true;
    }
    named[at] = true;
    if (is_exclusive) owned[at] = true;
  }
};

/// Called with each host cluster that something names, and whether that says it is the only one.
using NameCluster = std::function<void(HostCluster cluster, bool exclusive)>;

class Recovery {
 public:
  explicit Recovery(ImageParts& parts)
      : name_(parts.name),
        file_(*parts.file),
        header_(parts.header),
        geometry_(parts.geometry),
        map_(*parts.map),
        allocator_(*parts.allocator),
        freed_(parts.freed) {}

  io::Task<void> run();

 private:
  io::Task<Usage> scan_tables();
  void name_metadata(const NameCluster& name) const;
  io::Task<bool> name_mapped(const NameCluster& name, uint64_t* exclusive);
  void name_entry(const NameCluster& name, Mapping mapping) const;
  io::Task<void> require_refcounts(const Usage& usage);
  [[noreturn]] void refuse_refcount(HostCluster cluster, uint64_t refcount, uint64_t names) const;
  io::Task<void> reclaim_leaks(const Usage& usage);
  io::Task<void> mark_corrupt();
  io::Task<void> clear_autoclear_bits();

  const std::string& name_;
  io::File& file_;
  Header& header_;
  const Geometry& geometry_;
  const ClusterMap& map_;
  Allocator& allocator_;
  FreedClusters& freed_;
};

/// Reads every L2 table, once, while the image opens.
io::Task<Usage> Recovery::scan_tables() {
  const uint64_t file_bytes = co_await file_.size();
  Usage usage(std::max(geometry_.clusters_for(file_bytes), allocator_.end_cluster().index));
  const NameCluster name = [&](HostCluster cluster, bool exclusive) {
    usage.name(cluster, exclusive);
  };
  name_metadata(name);
  usage.sound = co_await name_mapped(name, &usage.exclusive);
  co_return usage;
}

void Recovery::name_metadata(const NameCluster& name) const {
  const auto name_all = [&](HostOffset at, uint64_t clusters) {
    for (uint64_t i = 0; i < clusters; ++i) name(geometry_.cluster_of(at) + i, true);
  };
  const Refcounts& refcounts = allocator_.refcounts();
  name_all({0}, 1);
  name_all(refcounts.table_offset(), refcounts.table_clusters());
  for (uint64_t i = 0; i < refcounts.blocks_max(); ++i) {
    if (refcounts.has_block(i)) name_all(refcounts.block_offset(i), 1);
  }
  name_all(header_.l1_table, geometry_.clusters_for(header_.l1_entry_count * uint64_t{8}));
}

/// Names L2 tables and what they map; false when an entry cannot be read. Such an entry is met and
/// reported when it is used.
io::Task<bool> Recovery::name_mapped(const NameCluster& name, uint64_t* exclusive) {
  bool sound = true;
  AlignedBytes table(geometry_.cluster_bytes());
  for (uint64_t l1_index = 0; l1_index < geometry_.l1_entries(); ++l1_index) {
    const auto entry = L1Entry::decode(map_.l1_raw(l1_index), geometry_.cluster_bits);
    if (!entry) sound = false;
    if (!entry || !entry->table) continue;
    name(geometry_.cluster_of(entry->table), entry->copied);
    if (exclusive != nullptr) ++*exclusive;
    co_await file_.read(entry->table.bytes, table.bytes());
    for (uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const auto raw = io::load_be<uint64_t>(table.data() + i * 8);
      if (raw == 0 || raw == kEntryZero) continue;
      const auto mapping = decode_l2_entry(raw, geometry_.cluster_bits, header_.version);
      if (!mapping) sound = false;
      if (!mapping || !mapping->host) continue;
      name_entry(name, *mapping);
      if (exclusive != nullptr && mapping->copied) ++*exclusive;
    }
  }
  co_return sound;
}

void Recovery::name_entry(const NameCluster& name, Mapping mapping) const {
  const HostCluster first = geometry_.cluster_of(mapping.host);
  if (mapping.kind != MappingKind::compressed) return name(first, mapping.copied);
  // Also past the end of the file: a cluster there would be handed out, and given back, as if the
  // stream did not reach into it.
  const HostCluster last =
      geometry_.cluster_of(HostOffset{mapping.host.bytes + mapping.compressed_bytes() - 1});
  for (HostCluster cluster = first; cluster <= last; ++cluster) name(cluster, false);
}

/// A refcount below the number of entries that name the cluster would let it be handed out, or
/// given back, while it is in use.
io::Task<void> Recovery::require_refcounts(const Usage& usage) {
  if (usage.past_end) refuse_refcount(*usage.past_end, 0, 1);
  const std::optional<HostCluster> unowned =
      co_await allocator_.first_without_refcount(usage.named);
  if (unowned) refuse_refcount(*unowned, 0, 1);
  // Clusters with several names are counted, a part of the file at a time.
  constexpr uint64_t kClustersAtOnce = 4 << 20;
  for (uint64_t first = 0; first < usage.shared.size(); first += kClustersAtOnce) {
    std::vector<uint32_t> names(std::min(kClustersAtOnce, usage.shared.size() - first));
    const auto begin = usage.shared.begin() + static_cast<ptrdiff_t>(first);
    if (std::find(begin, begin + static_cast<ptrdiff_t>(names.size()), true) ==
        begin + static_cast<ptrdiff_t>(names.size())) {
      continue;
    }
    const NameCluster count = [&](HostCluster cluster, bool) {
      const uint64_t at = cluster.index;
      if (at >= first && at - first < names.size()) ++names[at - first];
    };
    co_await name_mapped(count, nullptr);
    for (uint64_t i = 0; i < names.size(); ++i) {
      if (!usage.shared[first + i]) continue;
      const HostCluster cluster{first + i};
      const uint64_t refcount = co_await allocator_.refcount_of(cluster);
      if (refcount < names[i]) refuse_refcount(cluster, refcount, names[i]);
    }
  }
}

void Recovery::refuse_refcount(HostCluster cluster, uint64_t refcount, uint64_t names) const {
  throw FormatError(
      name_,
      fmt::format("host cluster {} at offset {} has refcount {}, but the tables name it {}; "
                  "the image is not written to, because data in use would be overwritten. It "
                  "can be read; \"qemu-img check -r all\" repairs refcounts",
                  cluster.index, geometry_.start_of(cluster).bytes, refcount,
                  names == 1 ? "once or more" : fmt::format("{} times", names)));
}

/// Clusters with a refcount that nothing names: handed out before a crash, and never mapped.
io::Task<void> Recovery::reclaim_leaks(const Usage& usage) {
  constexpr size_t kClustersAtOnce = 64 << 10;
  bool found = false;
  for (HostCluster from;;) {
    std::vector<HostCluster> leaked =
        co_await allocator_.in_use_but(usage.named, from, kClustersAtOnce);
    if (leaked.empty()) break;
    // The tables may be in the page cache only; what the disk's tables name is not to be freed.
    if (!found) co_await file_.sync_data();
    found = true;
    from = leaked.back() + 1;
    co_await allocator_.give_back(leaked);
  }
  if (!found) co_return;
  assert(header_.record && usage.sound);  // else an unread entry may name what looks leaked
  co_await allocator_.write_refcounts();
  freed_.note_gaps();
  co_await allocator_.lower_end();
}

/// Two guest clusters share what each believes to be its own. Nothing more is written.
io::Task<void> Recovery::mark_corrupt() {
  if (header_.version >= 3) {
    std::array<std::byte, 8> field;
    io::store_be<uint64_t>(field.data(), header_.incompatible_features | kIncompatibleCorrupt);
    co_await file_.write(Header::kIncompatibleOffset, field);
    co_await file_.sync_data();
  }
  throw FormatError(name_, "two owners of one host cluster; marked corrupt");
}

/// Who writes without knowing a feature says so by clearing its bit, before the first write.
io::Task<void> Recovery::clear_autoclear_bits() {
  if (header_.version < 3 || header_.autoclear_features == 0) co_return;
  const std::array<std::byte, 8> none{};
  co_await file_.write(Header::kAutoclearOffset, none);
  co_await file_.sync_data();
  header_.autoclear_features = 0;
}

io::Task<void> Recovery::run() {
  allocator_.reserve_below(geometry_.cluster_of(header_.l1_table) +
                           geometry_.clusters_for(header_.l1_entry_count * uint64_t{8}));
  co_await allocator_.open();
  uint64_t missing = geometry_.guest_clusters() + geometry_.l1_entries();
  // Refcounts alone are not trusted: an image may have been damaged, and nothing in the file tells
  // whether it was closed in good order. The tables are asked; they are empty when a job begins.
  const Usage usage = co_await scan_tables();
  missing -= std::min(missing, usage.exclusive);
  if (usage.two_owners) co_await mark_corrupt();
  UNLESS_PLANTED(free_without_table_check) co_await require_refcounts(usage);
  co_await clear_autoclear_bits();
  // Other programs' images are only appended to; so are those in which an entry cannot be read,
  // because it may mean a cluster that looks free.
  if (header_.record && usage.sound) {
    co_await reclaim_leaks(usage);
    co_await allocator_.find_free(usage.named);
  }
  // What a killed process wrote may be in the page cache only. The disk's tables must name no free
  // cluster; and a flush here covers the writes that were acknowledged there.
  co_await file_.sync_data();
  co_await allocator_.make_room(missing);
}

}  // namespace

io::Task<void> recover(ImageParts& parts) {
  Recovery recovery(parts);
  co_await recovery.run();
}

}  // namespace qcow
