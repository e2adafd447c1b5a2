// SPDX-License-Identifier: Apache-2.0
#include "qcow/check/check_content.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <optional>
#include <system_error>

#include "io/planted_bug.h"
#include "io/task_scope.h"
#include "qcow/format/format_error.h"

namespace qcow {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;
constexpr size_t kReadsAtOnce = 16;

/// Stored clusters that lie one behind the other in the guest and in the file.
struct Piece {
  GuestCluster cluster;
  uint64_t count = 0;
  HostOffset host;
  size_t sum = 0;  // of the first, in the block
};

/// What the image's own tables say of one cluster; nothing for an entry that is damaged.
using Found = std::optional<Mapping>;

class ContentCheck {
 public:
  ContentCheck(io::Runtime runtime, Layer& image, SumsReader& sums, ContentOptions options)
      : runtime_(runtime),
        image_(image),
        sums_(sums),
        options_(std::move(options)),
        geometry_(image.geometry()) {}

  io::Task<ContentResult> run() {
    require_own();
    const uint64_t tables = geometry_.l1_entries();
    for (uint64_t l1_index = 0; l1_index < tables; ++l1_index) co_await check_table(l1_index);
    std::ranges::sort(result_.damaged, {}, &DamagedRange::offset);
    co_return std::move(result_);
  }

 private:
  void require_own() const {
    const SumsFooter& footer = sums_.footer();
    const auto& record = image_.header().record;
    if (!record || footer.image_uuid != record->image_uuid ||
        footer.cluster_bits != geometry_.cluster_bits ||
        footer.virtual_bytes != geometry_.virtual_size) {
      throw FormatError(sums_.name(), fmt::format("is not the manifest of {}", image_.name()));
    }
  }

  io::Task<void> check_table(uint64_t l1_index) {
    const std::optional<SumBlock> said = co_await sums_.block(l1_index);
    if (!said && image_.raw_l1_entry(l1_index) == 0) co_return;
    const SumBlock block = said.value_or(SumBlock{.l1_index = l1_index});
    const std::vector<Found> found = co_await tables_say(l1_index);
    const std::vector<Piece> pieces = compare_kinds(block, found);
    if (!options_.reads_data) co_return;
    size_t next = 0;
    const auto work = [&]() -> io::Task<void> {
      while (next < pieces.size()) {
        const Piece piece = pieces[next++];
        co_await check_piece(piece, block);
      }
    };
    const auto workers = [&](io::TaskScope& scope) -> io::Task<void> {
      for (size_t i = 0; i < std::min(kReadsAtOnce, pieces.size()); ++i) scope.spawn(work());
      co_return;
    };
    co_await io::run_scoped(workers);
  }

  /// Of each cluster of one L2 table's range. A table that cannot be read says nothing of any.
  io::Task<std::vector<Found>> tables_say(uint64_t l1_index) {
    const GuestCluster first = geometry_.table_start(l1_index), end{geometry_.guest_clusters()};
    const size_t count = std::min(geometry_.l2_entries(), end - first);
    std::vector<Found> found(count);
    const auto entry = L1Entry::decode(image_.raw_l1_entry(l1_index), geometry_.cluster_bits);
    if (!entry || (entry->table && !image_.is_inside_file(entry->table))) co_return found;
    std::vector<uint64_t> raw(count);
    try {
      if (entry->table) co_await image_.read_l2_entries(entry->table, 0, raw);
    } catch (const std::system_error&) {
      co_return found;
    }
    for (size_t i = 0; i < count; ++i) {
      found[i] = decode_l2_entry(raw[i], geometry_.cluster_bits, image_.header().version);
      if (found[i] && found[i]->kind == MappingKind::data &&
          !image_.is_inside_file(found[i]->host)) {
        found[i].reset();
      }
    }
    co_return found;
  }

  /// Notes every cluster whose kind differs, and returns what is left to be read.
  std::vector<Piece> compare_kinds(const SumBlock& block, const std::vector<Found>& found) {
    const GuestCluster first = geometry_.table_start(block.l1_index);
    const uint64_t per_read = std::max<uint64_t>(1, kReadBytes >> geometry_.cluster_bits);
    std::vector<Piece> pieces;
    auto run = block.runs.begin();
    size_t sum = 0;
    for (uint32_t index = 0; index < found.size(); ++index) {
      while (run != block.runs.end() && run->end() <= index) ++run;
      const bool is_named = run != block.runs.end() && run->first <= index;
      const MappingKind wanted = !is_named                    ? MappingKind::unallocated
                                 : run->kind == SumKind::zero ? MappingKind::zero
                                                              : MappingKind::data;
      const size_t sum_here = sum;
      if (wanted == MappingKind::data) ++sum;
      const Found& mapping = found[index];
      if (!mapping || mapping->kind != wanted) {
        note(first + index, 1, mapping ? mapping->host : HostOffset{},
             mapping ? "is mapped otherwise" : "has a damaged table entry");
        continue;
      }
      if (wanted == MappingKind::zero) result_.zero_bytes += geometry_.cluster_bytes();
      if (wanted != MappingKind::data) continue;
      const bool continues =
          !pieces.empty() && pieces.back().count < per_read &&
          pieces.back().cluster + pieces.back().count == first + index &&
          pieces.back().host.bytes + (pieces.back().count << geometry_.cluster_bits) ==
              mapping->host.bytes;
      if (continues) {
        ++pieces.back().count;
      } else {
        pieces.push_back({first + index, 1, mapping->host, sum_here});
      }
    }
    return pieces;
  }

  io::Task<void> check_piece(Piece piece, const SumBlock& block) {
    const uint64_t bytes = piece.count << geometry_.cluster_bits;
    io::Buffer content = co_await runtime_.buffers.acquire(bytes);
    bool is_read = true;
    try {
      co_await image_.read_data(piece.host, content.bytes());
    } catch (const std::system_error&) {
      is_read = false;
    }
    if (!is_read && piece.count > 1) {  // which of them, and the rest of them
      content = io::Buffer();
      for (uint64_t i = 0; i < piece.count; ++i) {
        const Piece one{piece.cluster + i, 1,
                        HostOffset{piece.host.bytes + (i << geometry_.cluster_bits)},
                        piece.sum + i};
        co_await check_piece(one, block);
      }
      co_return;
    }
    for (uint64_t i = 0; i < piece.count; ++i) {
      const auto cluster =
          content.bytes().subspan(i << geometry_.cluster_bits, geometry_.cluster_bytes());
      PLANTED_BUG(damage_overlooked, if (i > 0) continue)
      if (is_read && sum_of(cluster) == block.sums[piece.sum + i]) continue;
      note(piece.cluster + i, 1, HostOffset{piece.host.bytes + (i << geometry_.cluster_bits)},
           is_read ? "reads differently" : "cannot be read");
    }
    result_.data_bytes += bytes;
    content = io::Buffer();
    if (options_.on_progress) co_await options_.on_progress(bytes);
  }

  void note(GuestCluster cluster, uint64_t count, HostOffset host, std::string_view what) {
    const uint64_t offset = geometry_.start_of(cluster).bytes;
    const uint64_t length = count << geometry_.cluster_bits;
    result_.damaged_bytes += length;
    auto& damaged = result_.damaged;
    if (!damaged.empty() && damaged.back().offset + damaged.back().length == offset &&
        damaged.back().what == what) {
      damaged.back().length += length;
    } else if (damaged.size() < options_.damages_max) {
      damaged.push_back({offset, length, host, std::string(what)});
    }
  }

  io::Runtime runtime_;
  Layer& image_;
  SumsReader& sums_;
  const ContentOptions options_;
  const Geometry geometry_;
  ContentResult result_;
};

}  // namespace

io::Task<ContentResult> check_content(io::Runtime runtime, Layer& image, SumsReader& sums,
                                      ContentOptions options) {
  ContentCheck check(runtime, image, sums, std::move(options));
  co_return co_await check.run();
}

}  // namespace qcow
