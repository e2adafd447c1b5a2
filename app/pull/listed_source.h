// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "app/pull/areas.h"
#include "app/pull/source.h"

namespace app {

/// Asked for in one call of BlockDevice::extents.
constexpr size_t kExtentsAtOnce = 4096;

/// A source of which a list in a file may tell what has changed.
class ListedSource : public PullSource {
 public:
  explicit ListedSource(PullDisk disk) : disk_(std::move(disk)) {}

  io::Task<std::vector<engine::CopyRange>> plan(uint64_t offset, uint64_t length, uint64_t& until,
                                                bool everything) final;

 protected:
  /// What holds data, as far as the source knows.
  virtual io::Task<std::vector<engine::CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                                            uint64_t& until) = 0;
  /// What has changed, as far as the source itself knows; asked for where it does.
  virtual io::Task<std::vector<engine::CopyRange>> plan_changed(uint64_t offset, uint64_t length,
                                                                uint64_t& until) = 0;
  virtual bool knows_changes() const = 0;
  /// Once the size is known. Throws std::runtime_error that names the file and the line.
  void read_list();
  /// Throws what require_unchanged() does. `what`: the file or the device.
  static void require_same_size(const std::string& what, uint64_t before, uint64_t now);

  const PullDisk disk_;

 private:
  std::optional<Areas> areas_;
};

/// The ranges made longer, to whole blocks; neighbours that meet become one.
std::vector<engine::CopyRange> in_blocks(const std::vector<engine::CopyRange>& ranges,
                                         uint64_t block, uint64_t from, uint64_t until);

/// Extents from `from` on as ranges; `until` is set to their end.
std::vector<engine::CopyRange> ranges_of(const std::vector<io::Extent>& extents, uint64_t from,
                                         uint64_t& until);

/// Makes each kind of source. They throw what PullSource::open throws.
io::Task<std::unique_ptr<PullSource>> open_nbd_source(io::Ring& ring, io::Runtime runtime,
                                                      PullDisk disk, const PullOptions& options);
io::Task<std::unique_ptr<PullSource>> open_file_source(io::Ring& ring, io::Runtime runtime,
                                                       PullDisk disk);
/// `path`: a QCOW2 image, read with its backing files or, if the disk is PullDisk::layer_only,
/// without them.
io::Task<std::unique_ptr<PullSource>> open_image_source(io::Runtime runtime, PullDisk disk,
                                                        std::string path);

}  // namespace app
