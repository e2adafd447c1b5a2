// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/ingest/arrivals.h"
#include "engine/ingest/change_contexts.h"
#include "engine/ingest/filling.h"
#include "engine/values/digest.h"
#include "engine/values/signals.h"
#include "engine/values/types.h"
#include "io/runtime.h"
#include "io/task.h"
#include "nbd/export.h"
#include "qcow/chain/chain.h"
#include "qcow/image/disk_share.h"
#include "qcow/image/publish_header.h"

namespace engine {

/// The published image that a new one stands on, as the catalogue knows it.
struct IngestParent {
  std::string path;         ///< in the directory of the new image
  uint64_t file_bytes = 0;  ///< at publish; another length means that the file was changed since
};

struct IngestSpec {
  std::string path;       ///< of the unpublished file
  std::string sums_path;  ///< where its manifest goes when it is sealed
  /// Where it is noted what has arrived, so that another job can go on with the image; "": nowhere.
  std::string arrived_path;
  bool resumes = false;  ///< goes on with the image and the notes that an earlier job has left
  qcow::Uuid image_uuid{};
  std::string export_name, description;
  uint64_t capacity_bytes = 0;
  std::optional<IngestParent> parent;
  bool whole = false;               ///< what is not sent reads as zeroes, whatever the parent holds
  std::vector<Ancestor> ancestors;  ///< clients may ask what changed since (M3)
  std::string repository_directory;  ///< parents must lie in here
  uint32_t connections_max = 64;
  nbd::ExportAccess access = nbd::ExportAccess::anybody;
  std::string owner;  ///< the job, as TLS names its client
  io::Duration commit_interval = std::chrono::seconds(1);
  uint64_t commit_bytes = 256 << 20;
  bool write_elision = true;              ///< what the parents hold already is not stored
  std::shared_ptr<qcow::DiskShare> disk;  ///< below the repository
  /// Both are called on the home thread.
  std::function<void()> on_connection;
  std::function<void(std::string cause)> on_failure;
};

/// What sealing leaves.
struct SealedImage {
  DiskCounters counters;
  uint64_t file_bytes = 0, allocated_bytes = 0;
  std::string sums_sha256;  ///< of the manifest
  std::string parent_root;  ///< SHA-256 of the parent's sidecar; "": a full, or the parent has none
  ParentComparison comparison;  ///< of a full, and where it cannot be made: empty
};

/// One disk being filled: its image and its export, which live on a data thread.
///
/// Invariant: the image outlives the export, the export its connections; retire() is the one way
/// out, and the file survives it. Belongs to the control thread, which visits the data thread with
/// io::call_on; the counters are atomic. Spec: docs/qcow2-rules.md, PU1–PU6.
class Ingest final : public nbd::ExportObserver {
 public:
  /// Makes the image, durably, and its export. On failure nothing stays.
  static io::Task<std::unique_ptr<Ingest>> open(io::Runtime home, io::Runtime data,
                                                IngestSpec spec);
  /// After retire().
  ~Ingest() override;

  const std::shared_ptr<nbd::Export>& exported() const { return export_; }
  const std::string& path() const { return spec_.path; }
  const io::Runtime& data() const { return data_; }
  nbd::Counters& traffic() const { return export_->counters(); }

  bool connected() const { return traffic().connections_now > 0; }
  bool ever_connected() const { return connection_order_ != 0; }
  /// Grows with every connection to any disk: the larger one connected later. 0: never.
  uint64_t connection_order() const { return connection_order_; }
  /// Of the bytes that arrive, the connections, the file. Any thread.
  DiskCounters counters() const;
  std::optional<Time> last_request_at() const;
  /// The file's length as far as it is used; what is allocated beyond waits for writes. Any thread.
  uint64_t used_bytes() const { return stored_.used_bytes; }

  /// Refuses writes, makes everything durable, checks the image. May be called again.
  io::Task<SealedImage> seal();
  /// Throws a sentence unless the names of the parents still lead to the images that this one was
  /// written on: others can remove and replace files in a repository.
  io::Task<void> require_parents();
  /// The seal bit and the manifest's hash go into the header, durably (PU6).
  io::Task<void> publish_header(qcow::Publication publication);

  /// Every request is refused from now on, and the connections end soon. The file may be renamed
  /// or removed at any time.
  io::Task<void> close();
  /// Waits until the last connection has ended, and takes everything down. Kept: what has arrived
  /// is durable, as far as that is possible, and the image at rest for who resumes it; else what is
  /// not sealed is not made durable any more.
  enum class Leaving : uint8_t { nothing, what_has_arrived };
  io::Task<void> retire(Leaving leaving = Leaving::nothing);

 private:
  Ingest(io::Runtime home, io::Runtime data, IngestSpec spec);
  io::Task<void> open_there();
  io::Task<void> make_image();
  io::Task<void> take_up_image();
  io::Task<void> open_image();
  nbd::ExportSpec export_spec();
  io::Task<void> require_clean();
  io::Task<std::unique_ptr<qcow::Chain>> open_parents_there();
  io::Task<ParentComparison> compare_there(qcow::Chain& parents);
  io::Task<void> keep_there();
  io::Task<void> retire_there(Leaving leaving);

  void connection_opened(nbd::Export&) override;
  void storage_failed(nbd::Export&, std::exception_ptr cause) override;

  const io::Runtime home_, data_;
  const IngestSpec spec_;
  FillingCounters stored_;
  DiskCounters resumed_;  // of the transfer that this one goes on with
  // Of the data thread.
  std::unique_ptr<Arrivals> arrivals_;
  std::unique_ptr<Filling> filling_;
  Sha256Stream sums_;
  std::shared_ptr<nbd::Export> export_;
  std::atomic<uint64_t> connection_order_ = 0;
  /// Callbacks that are still on their way home refer to this, not to the ingest.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// The words of a failure.
std::string text_of(const std::exception_ptr& failure) noexcept;

}  // namespace engine
