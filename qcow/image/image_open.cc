// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "io/planted_bug.h"
#include "qcow/chain/layer.h"
#include "qcow/image/image.h"
#include "qcow/image/recovery.h"

namespace qcow {

io::Task<std::unique_ptr<Image>> Image::open(io::Runtime runtime, std::string path,
                                             ImageOptions options) {
  std::unique_ptr<io::File> file = co_await runtime.files.open(path, io::OpenMode::read_write);
  std::unique_ptr<Image> image(new Image(runtime, path, std::move(options), std::move(file)));
  co_await image->prepare();
  io::Task<void> written = image->parts_.write_behind->stop();
  io::Task<void> allocated = image->parts_.space->stop();
  image->rest_.emplace(image->quiesce(std::move(written), std::move(allocated)));
  image->committer_->start();
  co_return image;
}

io::Task<void> Image::prepare() {
  parts_.lock = co_await ImageLock::acquire_patiently(parts_.runtime, *parts_.file,
                                                      LockRole::writer, parts_.name);
  const uint64_t file_bytes = co_await parts_.file->size();
  parts_.header = co_await read_header(*parts_.file, parts_.name);
  require_writable(parts_.header, parts_.name);
  // The seal bit alone does not say it: any program that writes clears the bits that it does not
  // know, and the record stays.
  bool published = parts_.header.record && parts_.header.record->published();
  PLANTED_BUG(seal_bit_decides, published = false)
  if (parts_.header.sealed() || published) {
    throw PublishedImageError(parts_.name);
  }
  parts_.geometry = parts_.header.geometry();
  // Smaller clusters share pages, and the page cache and O_DIRECT must not meet in one.
  UNLESS_PLANTED(direct_beside_buffered)
  if (parts_.geometry.cluster_bytes() < io::BufferPool::kPage) parts_.file->use_page_cache();
  ChainOptions parents;
  parents.repository_root = parts_.options.repository_root;
  parts_.parents =
      co_await Chain::open_parents_of(parts_.runtime, path_, parts_.header, std::move(parents));

  parts_.map.emplace(parts_.runtime.executor, *parts_.file, parts_.name, parts_.geometry,
                     parts_.header.l1_table, parts_.header.l1_entry_count,
                     parts_.options.tuning.table_cache_bytes, parts_.header.version);
  co_await parts_.map->read_l1();
  parts_.allocator.emplace(*parts_.file, parts_.name, parts_.geometry, parts_.header.refcount_table,
                           parts_.header.refcount_table_clusters, parts_.options.refcount_cover());
  co_await recover(parts_);
  parts_.freed.release(parts_.allocator->take_replaced_table());
  parts_.header.refcount_table = parts_.allocator->refcounts().table_offset();
  parts_.header.refcount_table_clusters =
      static_cast<uint32_t>(parts_.allocator->refcounts().table_clusters());

  const HostCluster end_max =
      parts_.allocator->end_cluster() + parts_.geometry.clusters_without_refcounts();
  // What lies behind the last cluster may be a hole.
  const uint64_t allocated = std::min(file_bytes, parts_.allocator->end_bytes());
  parts_.space.emplace(parts_.runtime.executor, *parts_.file, parts_.options.disk.get(),
                       parts_.options.tuning.allocate_step_bytes,
                       FileSpace::Bytes{.file = file_bytes,
                                        .allocated = allocated,
                                        .max = parts_.geometry.start_of(end_max).bytes});
  WriteBehind::Limits limits{parts_.options.tuning.writes_in_flight,
                             parts_.options.tuning.merged_write_bytes, parts_.options.disk};
  parts_.write_behind.emplace(
      parts_.runtime.executor, *parts_.file, *parts_.space, std::move(limits),
      [this](std::exception_ptr failure) { parts_.failure.fail(std::move(failure)); });
  if (!parts_.options.allocate_ahead) co_await parts_.space->stop();
  parts_.allocator->use_space(*parts_.space);
  co_await parts_.allocator->prepare_free();
  parts_.partials.emplace(parts_.runtime.buffers, parts_.geometry);
  if (!parts_.options.sums_path.empty()) {
    parts_.sums.emplace(parts_.runtime,
                        io::temporary_path(parts_.runtime.random, parts_.options.sums_path));
    if (const auto& on_sum = parts_.options.on_sum) {
      parts_.sums->tell([&on_sum](const SumLog::Entry& entry) {
        on_sum(entry.cluster, entry.sum ? &*entry.sum : nullptr);
      });
    }
  }
  reader_.emplace(parts_);
  writer_.emplace(parts_, *reader_);
  if (parts_.parents && parts_.options.elide_by) elision_.emplace(parts_, *reader_);
  relief_.emplace(parts_, *reader_, *writer_, elision_ ? &*elision_ : nullptr);
  committer_.emplace(parts_, *relief_);
  admission_.emplace(parts_, *relief_, *committer_);
}

}  // namespace qcow
