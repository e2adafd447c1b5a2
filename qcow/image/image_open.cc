#include <algorithm>
#include <array>

#include "io/planted_bug.h"
#include "qcow/chain/layer.h"
#include "qcow/image/image_parts.h"

namespace qcow {

io::Task<std::unique_ptr<Image>> Image::open(io::Runtime runtime, std::string path,
                                             ImageOptions options) {
  std::unique_ptr<io::File> file = co_await runtime.files.open(path, io::OpenMode::read_write);
  std::unique_ptr<Image> image(new Image(runtime, path, std::move(options), std::move(file)));
  co_await image->prepare();
  io::Task<void> written = image->write_behind_->stop();
  io::Task<void> allocated = image->space_->stop();
  image->rest_.emplace(image->quiesce(std::move(written), std::move(allocated)));
  image->background_.spawn(image->commit_in_background());
  co_return image;
}

io::Task<void> Image::prepare() {
  if (options_.lock) {
    lock_ = co_await ImageLock::acquire_patiently(runtime_, *file_, LockRole::writer, name_);
  }
  const uint64_t file_bytes = co_await file_->size();
  header_ = co_await read_header(*file_, name_);
  require_writable(header_, name_);
  // The seal bit alone does not say it: any program that writes clears the bits that it does not
  // know, and the record stays.
  bool published = header_.record && header_.record->published();
  PLANTED_BUG(seal_bit_decides, published = false)
  if (header_.sealed() || published) {
    throw FormatError(name_, "is a published restore point and is never opened for writing");
  }
  geometry_ = header_.geometry();
  // Smaller clusters share pages, and the page cache and O_DIRECT must not meet in one.
  UNLESS_PLANTED(direct_beside_buffered)
  if (geometry_.cluster_bytes() < io::BufferPool::kPage) file_->use_page_cache();
  ChainOptions parents;
  parents.repository_root = options_.repository_root;
  parents.lock = options_.lock;
  parents_ = co_await Chain::open_parents_of(runtime_, path_, header_, std::move(parents));

  map_.emplace(runtime_.executor, *file_, name_, geometry_, header_.l1_table,
               header_.l1_entry_count, options_.table_cache_bytes, header_.version);
  co_await map_->read_l1();
  allocator_.emplace(*file_, name_, geometry_, header_.refcount_table,
                     header_.refcount_table_clusters,
                     std::max(options_.refcount_cover_bytes, 2 * options_.commit_bytes));
  co_await find_room();
  releasable_ = allocator_->take_replaced_table();
  header_.refcount_table = allocator_->refcounts().table_offset();
  header_.refcount_table_clusters = static_cast<uint32_t>(allocator_->refcounts().table_clusters());

  const uint64_t cover_bytes = std::max(options_.refcount_cover_bytes, 2 * options_.commit_bytes);
  promises_max_ = std::max<uint64_t>(geometry_.clusters_for(cover_bytes) / 4, 1);
  promises_.emplace(runtime_.executor, promises_max_);
  const uint64_t clusters_max = allocator_->end_cluster() + geometry_.clusters_without_refcounts();
  // What lies behind the last cluster may be a hole.
  const uint64_t allocated =
      std::min(file_bytes, geometry_.host_offset(allocator_->end_cluster()).bytes);
  space_.emplace(runtime_.executor, *file_, options_.disk.get(), options_.allocate_step_bytes,
                 FileSpace::Bytes{.file = file_bytes,
                                  .allocated = allocated,
                                  .max = geometry_.host_offset(clusters_max).bytes});
  WriteBehind::Limits limits{options_.writes_in_flight, options_.merged_write_bytes, options_.disk};
  write_behind_.emplace(runtime_.executor, *file_, *space_, std::move(limits),
                        [this](std::exception_ptr failure) { fail(std::move(failure)); });
  if (!options_.allocate_ahead) co_await space_->stop();
  allocator_->use_space(*space_);
  co_await allocator_->prepare_free();
  partials_.emplace(runtime_.buffers, static_cast<uint32_t>(geometry_.cluster_bytes()),
                    geometry_.virtual_size);
}

/// Who writes without knowing a feature says so by clearing its bit, before the first write.
io::Task<void> Image::clear_autoclear_bits() {
  if (header_.version < 3 || header_.autoclear_features == 0) co_return;
  constexpr uint64_t kAutoclearFieldOffset = 88;
  const std::array<std::byte, 8> none{};
  co_await file_->write(kAutoclearFieldOffset, none);
  co_await file_->sync_data();
  header_.autoclear_features = 0;
}

/// Finds where the file may be continued. No cluster that a table names, and none with a refcount,
/// is ever handed out (DU9).
io::Task<void> Image::find_room() {
  allocator_->reserve_below(geometry_.host_cluster_index(header_.l1_table) +
                            geometry_.clusters_for(header_.l1_entry_count * uint64_t{8}));
  co_await allocator_->open();
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
    co_await allocator_->find_free(usage.named);
  }
  // What a killed process wrote may be in the page cache only. The disk's tables must name no free
  // cluster; and a flush here covers the writes that were acknowledged there.
  co_await file_->sync_data();
  co_await allocator_->make_room(missing);
}

}  // namespace qcow
