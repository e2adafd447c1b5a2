// SPDX-License-Identifier: Apache-2.0
#include "qcow/image/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "io/big_endian.h"
#include "io/planted_bug.h"
#include "qcow/chain/layer.h"
#include "qcow/format/entries.h"

namespace qcow {

namespace {

constexpr uint64_t kWriteBytes = 1 << 20;
// The first commit finds refcounts for its first clusters in a block that is already in place.
constexpr uint64_t kSpareRefcounts = 8;

bool is_too_large(const Geometry& geometry) {
  const uint64_t size = geometry.virtual_size;
  const uint64_t l1_entries_max = kL1BytesMax / 8;
  const uint64_t table_clusters_max = kRefcountTableBytesMax >> geometry.cluster_bits;
  // The division comes first: near 2^64 the sums of the worst case would wrap.
  return size / geometry.l2_table_guest_bytes() >= l1_entries_max + 1 ||
         geometry.l1_entries() > l1_entries_max ||
         geometry.refcount_table_clusters() > table_clusters_max;
}

void refuse_size(const Geometry& geometry, std::string_view image_name) {
  const uint64_t size = geometry.virtual_size;
  if (size == 0) throw FormatError(image_name, "disk size 0 is too small");
  if (is_too_large(geometry)) {
    throw FormatError(image_name, fmt::format("disk size {} is too large", size));
  }
}

std::vector<std::byte> refcount_table_content(const Geometry& geometry,
                                              const InitialLayout& layout) {
  std::vector<std::byte> content(layout.refcount_table_clusters * geometry.cluster_bytes());
  for (uint64_t block = 0; block < layout.refcount_block_count; ++block) {
    const uint64_t at = layout.refcount_blocks.bytes + block * geometry.cluster_bytes();
    io::store_be<uint64_t>(&content[block * 8], at);
  }
  return content;
}

std::vector<std::byte> refcount_blocks_content(const Geometry& geometry,
                                               const InitialLayout& layout) {
  std::vector<std::byte> content(layout.refcount_block_count * geometry.cluster_bytes());
  for (uint64_t index = 0; index < layout.clusters; ++index) {
    set_refcount(content, index, geometry.refcount_order, 1);
  }
  return content;
}

io::Task<void> write_zeroes(io::File& file, uint64_t from, uint64_t end) {
  const std::vector<std::byte> zeroes(std::min(end - from, kWriteBytes));
  while (from < end) {
    const auto piece = std::span(zeroes).first(std::min(end - from, kWriteBytes));
    co_await file.write(from, piece);
    from += piece.size();
  }
}

io::Task<void> write_image(io::File& file, Header header, std::string image_name) {
  const Geometry geometry = header.geometry();
  const InitialLayout layout = InitialLayout::of(geometry);
  const std::vector<std::byte> cluster_zero = header.encode(image_name);
  co_await file.write(0, cluster_zero);
  const std::vector<std::byte> table = refcount_table_content(geometry, layout);
  co_await file.write(layout.refcount_table.bytes, table);
  const std::vector<std::byte> blocks = refcount_blocks_content(geometry, layout);
  co_await file.write(layout.refcount_blocks.bytes, blocks);
  co_await write_zeroes(file, layout.l1_table.bytes, layout.file_bytes);
  co_await file.sync();
}

}  // namespace

uint64_t virtual_size_max(uint32_t cluster_bits, uint32_t refcount_order) {
  constexpr uint64_t kSectorBytes = 512;
  uint64_t fits = 0, too_large = uint64_t{1} << 54;  // in sectors
  while (fits + 1 < too_large) {
    const uint64_t middle = fits + (too_large - fits) / 2;
    const bool over = is_too_large({cluster_bits, refcount_order, middle * kSectorBytes});
    (over ? too_large : fits) = middle;
  }
  return fits * kSectorBytes;
}

InitialLayout InitialLayout::of(const Geometry& geometry) {
  InitialLayout layout;
  layout.refcount_table_clusters = geometry.refcount_table_clusters();
  const uint64_t others = 1 + layout.refcount_table_clusters + geometry.l1_clusters();
  uint64_t blocks = 1;
  while (blocks * geometry.refcounts_per_block() < others + blocks + kSpareRefcounts) ++blocks;
  layout.refcount_block_count = blocks;
  layout.refcount_table = geometry.start_of(HostCluster{1});
  layout.refcount_blocks = geometry.start_of(HostCluster{1 + layout.refcount_table_clusters});
  layout.l1_table = geometry.start_of(HostCluster{1 + layout.refcount_table_clusters + blocks});
  layout.clusters = others + blocks;
  layout.file_bytes = layout.l1_table.bytes + geometry.l1_entries() * 8;
  return layout;
}

Header new_header(const CreateOptions& options, std::string_view image_name) {
  Header header;
  header.cluster_bits = options.cluster_bits;
  header.refcount_order = options.refcount_order;
  header.virtual_size = options.virtual_size;
  const Geometry geometry = header.geometry();
  refuse_size(geometry, image_name);

  const InitialLayout layout = InitialLayout::of(geometry);
  header.l1_entry_count = static_cast<uint32_t>(geometry.l1_entries());
  header.l1_table = layout.l1_table;
  header.refcount_table = layout.refcount_table;
  header.refcount_table_clusters = static_cast<uint32_t>(layout.refcount_table_clusters);

  Record record;
  record.image_uuid = options.image_uuid;
  if (options.parent) {
    header.backing_name = options.parent->name;
    header.backing_format = "qcow2";
    record.parent_uuid = options.parent->uuid;
    record.parent_manifest_hash = options.parent->manifest_hash;
  } else {
    record.flags |= Record::kFlagFullImage;
  }
  header.record = record;
  header.feature_names = standard_feature_names();
  // The names are a courtesy; the clusters of crash tests are too small for them.
  if (header.encoded_bytes() > geometry.cluster_bytes()) header.feature_names.clear();
  return header;
}

io::Task<void> create(io::Runtime runtime, std::string path, CreateOptions options) {
  const std::string name = image_name_of(path);
  Header header = new_header(options, name);
  static_cast<void>(header.encode(name));  // refuses before there is a file
  std::unique_ptr<io::File> file = co_await runtime.files.open(path, io::OpenMode::create_new);
  std::exception_ptr failure;
  try {
    co_await write_image(*file, header, name);
    const std::string directory = io::parent_path(path);
    UNLESS_PLANTED(directory_not_synced) co_await runtime.files.sync_directory(directory);
  } catch (...) {
    failure = std::current_exception();
  }
  file.reset();
  if (!failure) co_return;
  try {
    co_await runtime.files.remove(path);
  } catch (...) {
    // The first failure is the one to report; a file that stays is a `.partial` to be removed.
  }
  std::rethrow_exception(failure);
}

}  // namespace qcow
