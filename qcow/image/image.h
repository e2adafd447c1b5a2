// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "qcow/image/admission.h"
#include "qcow/image/cluster_writer.h"
#include "qcow/image/committer.h"
#include "qcow/image/elision.h"
#include "qcow/image/image_options.h"
#include "qcow/image/image_parts.h"
#include "qcow/image/image_reader.h"
#include "qcow/image/partial_relief.h"

namespace qcow {

/// What seal() found.
struct SealedImage {
  ImageCounters counters;
  uint64_t file_bytes = 0;  ///< the file's final length
};

/// What confirm() has found of a cluster.
enum class Confirmed : uint8_t {
  no_data,    ///< the image stores none of it: it is zero, or the parents'
  same,       ///< the bytes that the checksum was made of
  different,  ///< others, unreadable, or the checksum is not known
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

  uint64_t size() const override { return parts_.geometry.virtual_size; }
  uint32_t preferred_block_size() const override;
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

  /// The first failure of a write or a commit, or null.
  std::exception_ptr failure() const { return parts_.failure.cause(); }
  ImageCounters counters() const;
  const Header& header() const { return parts_.header; }
  const std::string& name() const { return parts_.name; }
  /// The parents, or null for a full image.
  const Chain* parents() const { return parts_.parents.get(); }
  /// False when the file system has no open-file-description locks.
  bool locks_supported() const { return parts_.lock.supported(); }

  /// Reads clusters that an earlier writer of the image has left, and compares them with their
  /// checksums: [i] of first + i, nothing where it is not known. Those that are `same` go into the
  /// manifest with it. Throws FormatError for a corrupt entry.
  io::Task<std::vector<Confirmed>> confirm(GuestCluster first,
                                           std::vector<std::optional<Sum>> sums);

  /// What is below this image takes the place of a stored cluster whose content is not to be
  /// trusted. No other write to the cluster may be under way. Throws what reading and writing
  /// throw.
  io::Task<void> renew(GuestCluster cluster);

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
  /// What becomes of a whole cluster that is written.
  enum class Fate : uint8_t { store, zero, leave_to_parents };
  Image(io::Runtime runtime, std::string path, ImageOptions options,
        std::unique_ptr<io::File> file);

  // image_open.cc
  io::Task<void> prepare();

  // image.cc
  void require_open(const char* verb, uint64_t offset, uint64_t length) const;
  void on_failure() noexcept;
  void refuse_or_fail(std::exception_ptr failure);
  GuestCluster cluster_of(uint64_t offset) const {
    return parts_.geometry.cluster_of(GuestOffset{offset});
  }

  // image_write.cc
  io::Task<void> accept(uint64_t offset, io::Buffer from);
  io::Task<void> write_whole(std::shared_ptr<Payload> payload, uint64_t offset,
                             std::span<const std::byte> bytes);
  io::Task<void> write_partial(std::shared_ptr<Payload> payload, uint64_t offset,
                               std::span<const std::byte> bytes);
  io::Task<std::vector<Fate>> fates_of(GuestCluster first, std::span<const std::byte> bytes,
                                       std::vector<Sum>& sums);
  io::Task<void> finish_complete(GuestCluster cluster, RangeQueue::Hold hold);

  // image_zero.cc
  io::Task<void> zero_range(uint64_t offset, uint64_t length, io::ZeroMode mode);
  io::Task<void> require_fast_zero(uint64_t offset, uint64_t length);
  io::Task<void> zero_partial(uint64_t offset, uint64_t length, io::ZeroMode mode);
  io::Task<void> zero_whole(GuestCluster first, GuestCluster end, io::ZeroMode mode);

  // image_seal.cc
  io::Task<void> drain();
  io::Task<void> quiesce(io::Task<void> written, io::Task<void> allocated);
  void close_doors();
  io::Task<void> take_rest();
  io::Task<void> finish();
  io::Task<void> punch_unowned();
  io::Task<void> give_back_empty_metadata(uint64_t file_bytes);

  std::string path_;
  State state_ = State::open;
  ImageParts parts_;
  io::Semaphore budget_;  // bytes accepted and not yet written

  // Made when the parts are whole; each stands on those before it.
  std::optional<ImageReader> reader_;
  std::optional<ClusterWriter> writer_;
  std::optional<Elision> elision_;  // where it is wanted and there are parents
  std::optional<PartialRelief> relief_;
  std::optional<Committer> committer_;
  std::optional<Admission> admission_;
  std::optional<io::Task<void>> rest_;  // made by open(), so that the way to rest needs no memory
};

}  // namespace qcow
