#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "io/task_scope.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/locks.h"
#include "qcow/format/header.h"
#include "qcow/image/allocator.h"
#include "qcow/image/cluster_map.h"
#include "qcow/image/file_space.h"
#include "qcow/image/partial_clusters.h"
#include "qcow/image/range_queue.h"
#include "qcow/image/retained_clusters.h"
#include "qcow/image/write_behind.h"

namespace qcow {

/// What write_zeroes with ZeroMode::no_hole does.
enum class NoHole : uint8_t {
  zero_clusters,  ///< as may_unmap: reads as zero, takes no space, hides the parent
  allocate,       ///< stores zeroes, so that later writes there need no space
};

struct ImageOptions {
  /// Parents must lie in here (RF15); empty: anywhere.
  std::string repository_root;
  bool lock = true;  ///< writer's locks here, reader's locks on the parents (LK1, LK2)

  /// A commit starts after this time or this much new data, whichever is first (DU3).
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;

  /// Data accepted and not yet written: in bytes, and in I/Os under way.
  uint64_t write_behind_bytes = 16 << 20;
  size_t writes_in_flight = 8;
  std::shared_ptr<DiskShare> disk = nullptr;  ///< shared with the other images on the disk
  /// Memory for L2 tables that equal the disk's; one stays in any case.
  uint64_t table_cache_bytes = ClusterMap::kCacheBytes;
  /// Neighbours in the file are written together up to this.
  size_t merged_write_bytes = 1 << 20;
  /// Memory for partial clusters; above it the oldest are filled from the parents.
  uint64_t partial_bytes = 8 << 20;
  NoHole no_hole = NoHole::zero_clusters;
  bool allocate_ahead = true;
  uint64_t allocate_step_bytes = 256 << 20;
  /// Zeroes of a partial cluster are left out where the file was never written: in such units, and
  /// when that saves more than this for each write it takes.
  uint32_t sparse_unit_bytes = 4096;
  uint64_t sparse_write_cost_bytes = 24 << 10;
  /// Refcount blocks reach this far beyond the last cluster: two commits' worth, because one is
  /// being written down while the next one's data arrive.
  uint64_t refcount_cover_bytes = 512 << 20;

  /// A file system that is full refuses what is new, and takes it again once there is space. With
  /// this, the refusal is a failure like any other, and final.
  bool full_is_final = false;

  /// Called with the first failure at once, also when no request is under way; what it throws is
  /// logged and goes no further. Not called while the image is sealed or ended, because that throws
  /// the failure.
  std::function<void(std::exception_ptr)> on_failure = nullptr;
};

struct ImageCounters {
  uint64_t bytes_stored = 0;  ///< host clusters given to guest clusters since open
  uint64_t bytes_zeroed = 0;  ///< by write_zeroes and discard
  uint64_t bytes_elided = 0;  ///< equal to the parents' content and not stored
  uint64_t commits = 0;       ///< that wrote something
  uint64_t file_bytes = 0;    ///< end of the used part of the file
};

/// What seal() found.
struct SealedImage {
  ImageCounters counters;
  uint64_t file_bytes = 0;  ///< the file's final length
};

/// A writable QCOW2 image: what an ingest fills, a temporary overlay, or what `varve nbd` serves.
///
/// At every instant the file is a valid image with leaked clusters at most; docs/qcow2-writing.md
/// argues why. write() returns when the bytes are accepted; a commit makes them durable: in the
/// background after a second or 256 MiB, and in flush(), which may share one commit with others.
/// The first failure of a write or of a commit is final (X9): failure() keeps it, and write and
/// flush throw it from then on. Reads go on where it is known which bytes were lost; otherwise, as
/// after a failed sync, they throw it too. What is refused before it was accepted is no failure: a
/// corrupt entry, or a full file system (NoSpace). Memory stays within 48 MiB whatever the disk's
/// size.
///
/// Ends by close(), seal() and then close(), or abandon(); then it may be destroyed. Belongs to
/// one executor thread. Spec: docs/qcow2-rules.md, "Layout and tables" to "Seal and publish".
class Image final : public io::BlockDevice {
 public:
  /// Throws FormatError for what varve refuses to write (RF1–RF21); no lock or descriptor stays.
  static io::Task<std::unique_ptr<Image>> open(io::Runtime runtime, std::string path,
                                               ImageOptions options);
  ~Image() override;

  uint64_t size() const override { return geometry_.virtual_size; }
  uint32_t preferred_block_size() const override;
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

  /// The first failure of a write or a commit, or null.
  std::exception_ptr failure() const { return failure_; }
  ImageCounters counters() const;
  const Header& header() const { return header_; }
  const std::string& name() const { return name_; }
  /// The parents, or null for a full image.
  const Chain* parents() const { return parents_.get(); }
  /// False when the file system has no open-file-description locks.
  bool locks_supported() const { return lock_.supported(); }

  /// PU1, PU2: no further change; everything durable, unowned clusters given back and punched, the
  /// file cut to its length. Reading goes on. Throws the sticky failure, if there is one.
  io::Task<SealedImage> seal();
  /// PU6: one write of the header with the seal and the finished record, then fsync. After seal();
  /// may be repeated with the same values.
  io::Task<void> publish_header(Sha256 manifest_hash, uint64_t publish_time);
  /// Gives back the locks of a sealed image that is no longer read, and those on its parents: the
  /// files may be removed then.
  void release_locks();
  /// Everything durable and the file cut to its length, unless sealed already; then at rest.
  /// Throws the sticky failure, but is at rest in any case; when there is no memory even for the
  /// task, the call itself throws and nothing has happened.
  io::Task<void> close();
  /// At rest without a commit: what is not durable is lost, and nothing more is begun, from the
  /// call on and not only when awaited; what was being written or allocated is waited for. Never
  /// fails: the memory that it needs was set aside by open(). Does nothing to a closed image.
  io::Task<void> abandon();

 private:
  enum class State : uint8_t { open, sealing, sealed, closed };
  struct Payload;    // a piece that write() took over, and its share of the budget
  struct HeldWrite;  // clusters held until their data write has ended
  struct Room;       // host clusters promised to an operation
  struct ClusterRange {
    uint64_t first = 0;
    uint64_t end = 0;
  };

  Image(io::Runtime runtime, std::string path, ImageOptions options,
        std::unique_ptr<io::File> file);

  // image_open.cc
  io::Task<void> prepare();
  io::Task<void> clear_autoclear_bits();
  io::Task<void> find_room();

  // image_recovery.cc
  struct Usage;
  /// Called with each host cluster that something names, and whether that says it is the only one.
  using NameCluster = std::function<void(uint64_t cluster, bool exclusive)>;
  io::Task<Usage> scan_tables();
  void name_metadata(const NameCluster& name) const;
  io::Task<bool> name_mapped(const NameCluster& name, uint64_t file_clusters, uint64_t* exclusive);
  void name_entry(const NameCluster& name, Mapping mapping, uint64_t file_clusters) const;
  io::Task<void> require_refcounts(const Usage& usage);
  [[noreturn]] void refuse_refcount(uint64_t cluster, uint64_t refcount, uint64_t names) const;
  io::Task<void> reclaim_leaks(const Usage& usage);
  io::Task<void> mark_corrupt();

  // image.cc
  void require_open(const char* verb, uint64_t offset, uint64_t length) const;
  void fail(std::exception_ptr failure) noexcept;
  void refuse_or_fail(std::exception_ptr failure);
  void changed(uint64_t data_bytes);

  // image_write.cc
  io::Task<Room> admit(uint64_t clusters);
  uint64_t end_after_commit() const;
  bool must_wait_for_commit(uint64_t clusters) const;
  io::Task<void> accept(uint64_t offset, io::Buffer from);
  io::Task<void> write_whole(std::shared_ptr<Payload> payload, uint64_t offset,
                             std::span<const std::byte> bytes);
  io::Task<void> write_partial(std::shared_ptr<Payload> payload, uint64_t offset,
                               std::span<const std::byte> bytes);
  io::Task<L2Table*> table_for_update(uint64_t l1_index);
  io::Task<void> place(std::shared_ptr<HeldWrite> held, uint64_t first, uint64_t count,
                       const std::byte* bytes);
  void place_in_table(const std::shared_ptr<HeldWrite>& held, L2Table& table, uint64_t first,
                      uint64_t count, const std::byte* bytes);
  HostOffset host_for_new_data(L2Table& table, uint64_t cluster);
  void drop(const Mapping& mapping);

  // image_partial.cc
  io::Task<void> finish_partial(uint64_t cluster, RangeQueue::Hold hold, bool detect_zeroes);
  void store_partial(const std::shared_ptr<HeldWrite>& held, L2Table& table, uint64_t cluster);
  io::Task<void> fill_gaps(uint64_t cluster);
  io::Task<void> complete_partial(uint64_t cluster);
  io::Task<void> complete_partials(std::vector<uint64_t> clusters);
  io::Task<void> relieve_partials();

  // image_zero.cc
  io::Task<void> zero_range(uint64_t offset, uint64_t length, io::ZeroMode mode);
  io::Task<void> require_fast_zero(uint64_t offset, uint64_t length);
  io::Task<void> zero_partial(uint64_t offset, uint64_t length, io::ZeroMode mode);
  io::Task<void> zero_in_place(RangeQueue::Hold hold, Mapping mapping, uint64_t offset,
                               uint64_t length, io::ZeroMode mode);
  io::Task<void> zero_whole(uint64_t first, uint64_t end, io::ZeroMode mode);
  io::Task<void> zero_clusters(uint64_t first, uint64_t count);
  void zero_in_table(L2Table& table, uint64_t first, uint64_t count,
                     const std::vector<ClusterRange>& already_zero);
  io::Task<std::vector<ClusterRange>> zero_below(uint64_t first, uint64_t count);
  io::Task<void> store_zeroes(std::shared_ptr<HeldWrite> held, uint64_t first, uint64_t count);
  io::Task<bool> reads_as_zero(uint64_t cluster);
  io::Task<bool> base_reads_as_zero(uint64_t cluster);

  // image_read.cc
  struct ReadRun;
  void require_readable() const;
  std::vector<ReadRun> runs_in_table(const L2Table* table, uint64_t offset, uint64_t end) const;
  io::Task<void> read_run(ReadRun run, std::span<std::byte> into);
  io::Task<void> read_below(uint64_t offset, std::span<std::byte> into);
  io::Task<void> read_compressed(Mapping mapping, uint64_t cluster, uint32_t at,
                                 std::span<std::byte> into);
  io::Task<void> read_base(uint64_t cluster, uint32_t at, std::span<std::byte> into);

  // image_extents.cc
  io::Task<void> extents_below(uint64_t offset, uint64_t length, size_t count_max,
                               std::vector<io::Extent>& extents);

  // image_commit.cc
  io::Task<void> commit();
  io::Task<void> run_commit();
  io::Task<void> commit_steps();
  io::Task<void> sync_data();
  io::Task<void> require_length();
  io::Task<void> commit_in_background();
  void release_retained_over_bound();
  io::Task<void> stop_background();

  // image_seal.cc
  io::Task<void> drain();
  io::Task<void> quiesce(io::Task<void> written, io::Task<void> allocated);
  io::Task<void> take_rest();
  io::Task<void> finish();
  io::Task<void> give_back_unowned();
  io::Task<void> punch_unowned();

  io::Runtime runtime_;
  std::string path_;
  std::string name_;
  ImageOptions options_;
  std::unique_ptr<io::File> file_;
  ImageLock lock_;  // given back before the file closes
  Header header_;
  Geometry geometry_;
  std::unique_ptr<Chain> parents_;
  State state_ = State::open;
  std::exception_ptr failure_;
  ImageCounters counters_;

  std::optional<Allocator> allocator_;
  std::optional<ClusterMap> map_;
  std::optional<FileSpace> space_;
  std::optional<WriteBehind> write_behind_;
  std::optional<PartialClusters> partials_;
  RetainedClusters retained_;
  RangeQueue ranges_;
  io::Semaphore budget_;     // bytes accepted and not yet written
  io::Semaphore completed_;  // bytes of partial clusters completed and not yet written

  uint64_t reserved_ = 0;  // host clusters promised to operations under way
  // Of what a commit can make room for, this much may be promised at once. So the operations that
  // come while one runs find room, however many they are.
  uint64_t promises_max_ = 0;
  std::optional<io::Semaphore> promises_;
  bool relieving_ = false;
  io::Event relieved_;

  // Host clusters without an owner: by a mapping that is not durable yet, and by a durable one.
  std::vector<uint64_t> dropped_;
  std::vector<uint64_t> releasable_;
  // What was accepted may be missing, at an unknown place: another program has truncated the file,
  // a sync failed, or a step that moves bytes out of memory and changes their mapping did not end.
  bool content_unknown_ = false;
  bool gave_back_ = false;    // some cluster below the end has refcount 0
  uint64_t length_seen_ = 0;  // bytes of the file at the last commit

  io::Event changed_;  // something to commit
  io::Event urgent_;   // do not wait for the interval
  bool stopping_ = false;
  bool data_written_ = false;  // since the last snapshot
  uint64_t bytes_since_commit_ = 0;
  bool committing_ = false;
  uint64_t commits_begun_ = 0;
  uint64_t commits_ended_ = 0;
  io::Event commit_ended_;
  io::TaskScope background_;
  std::optional<io::Task<void>> rest_;  // made by open(), so that the way to rest needs no memory
};

}  // namespace qcow
