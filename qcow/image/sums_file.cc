// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/sums_file.h"

#include <algorithm>
#include <cassert>

#include "io/planted_bug.h"
#include "io/task_scope.h"
#include "qcow/format/aligned_bytes.h"

namespace qcow {
namespace {

constexpr size_t kWriteBytes = 1 << 20, kReadsAtOnce = 16;

/// A stored cluster whose sum is still to be found out.
struct UnknownSum {
  HostOffset host;
  size_t at = 0;  // in the block's sums
};

class SumsWriter {
 public:
  SumsWriter(ImageParts& parts, SumLog& log, io::File& file)
      : parts_(parts), log_(log), file_(file) {}

  io::Task<void> run() {
    co_await log_.finish();
    const uint64_t tables = parts_.geometry.l1_entries();
    for (uint64_t l1_index = 0; l1_index < tables; ++l1_index) {
      if (parts_.map->has_table(l1_index)) co_await write_block(l1_index);
    }
    const uint64_t index_offset = written_ + ahead_.size();
    const std::vector<std::byte> index = encode(index_);
    put(index);
    const SumsFooter footer{.image_uuid = parts_.header.record->image_uuid,
                            .cluster_bits = parts_.geometry.cluster_bits,
                            .virtual_bytes = parts_.geometry.virtual_size,
                            .block_count = index_.size(),
                            .index_offset = index_offset,
                            .index_check = check_of(index)};
    put(footer.encode());
    co_await flush();
    UNLESS_PLANTED(manifest_unsynced) co_await file_.sync();
  }

 private:
  io::Task<void> write_block(uint64_t l1_index) {
    const GuestCluster first = parts_.geometry.table_start(l1_index);
    const std::vector<SumLog::Entry> known =
        co_await log_.take(parts_.geometry.table_start(l1_index + 1));
    const L2Table* const table = co_await parts_.map->load(l1_index);
    std::vector<UnknownSum> unknown;
    SumBlock block = block_of(*table, first, known, unknown);
    if (block.runs.empty()) co_return;
    co_await read_back(unknown, block);
    index_.push_back({l1_index, written_ + ahead_.size()});
    put(encode(block));
    if (ahead_.size() >= kWriteBytes) co_await flush();
  }

  /// Without a suspension point: the table is the map's.
  SumBlock block_of(const L2Table& table, GuestCluster first,
                    const std::vector<SumLog::Entry>& known, std::vector<UnknownSum>& unknown) {
    SumBlock block{.l1_index = table.l1_index()};
    auto entry = known.begin();
    const GuestCluster end{parts_.geometry.guest_clusters()};
    const uint64_t count = std::min(parts_.geometry.l2_entries(), end - first);
    for (uint32_t index = 0; index < count; ++index) {
      const Mapping mapping = parts_.map->mapping_of(&table, first + index);
      assert(mapping.kind != MappingKind::compressed && "varve stores none in its own images");
      while (entry != known.end() && entry->cluster < first + index) ++entry;
      if (mapping.kind == MappingKind::zero) block.add_zero(index);
      if (mapping.kind != MappingKind::data) continue;
      const bool is_known = entry != known.end() && entry->cluster == first + index && entry->sum &&
                            !log_.incomplete();
      if (!is_known) unknown.push_back({mapping.host, block.sums.size()});
      block.add_data(index, is_known ? *entry->sum : Sum{});
    }
    return block;
  }

  io::Task<void> read_back(const std::vector<UnknownSum>& unknown, SumBlock& block) {
    const auto read_one = [&](UnknownSum one) -> io::Task<void> {
      AlignedBytes content(parts_.geometry.cluster_bytes());
      co_await parts_.file->read(one.host.bytes, content.bytes());
      block.sums[one.at] = sum_of(content.bytes());
    };
    for (size_t from = 0; from < unknown.size(); from += kReadsAtOnce) {
      const size_t end = std::min(from + kReadsAtOnce, unknown.size());
      const auto batch = [&](io::TaskScope& reads) -> io::Task<void> {
        for (size_t i = from; i < end; ++i) reads.spawn(read_one(unknown[i]));
        co_return;
      };
      co_await io::run_scoped(batch);
    }
  }

  void put(const std::vector<std::byte>& bytes) {
    ahead_.insert(ahead_.end(), bytes.begin(), bytes.end());
  }
  io::Task<void> flush() {
    co_await file_.write(written_, ahead_);
    if (parts_.options.on_sums) parts_.options.on_sums(ahead_);
    written_ += ahead_.size();
    ahead_.clear();
  }

  ImageParts& parts_;
  SumLog& log_;
  io::File& file_;
  std::vector<SumIndexEntry> index_;
  std::vector<std::byte> ahead_;  // not in the file yet
  uint64_t written_ = 0;
};

}  // namespace

io::Task<void> write_sums(ImageParts& parts, SumLog& log, std::string path) {
  assert(parts.header.record && "an image of varve's own");
  io::FileSystem& files = parts.runtime.files;
  PLANTED_BUG(delete_without_identity, const auto taken = co_await files.status(path, false);
              if (taken) co_await files.remove(path))
  const auto file = co_await files.open(path, io::OpenMode::create_new);
  SumsWriter writer(parts, log, *file);
  co_await writer.run();
  UNLESS_PLANTED(manifest_name_unsynced) co_await files.sync_directory(io::parent_path(path));
}

}  // namespace qcow
