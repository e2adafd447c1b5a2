// SPDX-License-Identifier: Apache-2.0
#include "app/pull/listed_source.h"
#include "qcow/chain/chain.h"

namespace app {
namespace {

using engine::CopyRange;

/// The disk in a QCOW2 image of any program. The image must not change while it is read.
class ImageSource final : public ListedSource {
 public:
  ImageSource(io::Runtime runtime, PullDisk disk, std::unique_ptr<qcow::Chain> chain)
      : ListedSource(std::move(disk)), runtime_(runtime), chain_(std::move(chain)) {
    read_list();
  }

  uint64_t size() const override { return chain_->size(); }
  std::vector<io::BlockDevice*> devices() override { return {chain_.get()}; }
  io::Task<void> require_unchanged() override {
    for (size_t at = 0; at < chain_->layer_count(); ++at) {
      const qcow::Layer& layer = chain_->layer(at);
      const auto file = co_await runtime_.files.status(layer.path());
      require_same_size(layer.path(), layer.file_bytes(), file ? file->size : 0);
    }
  }
  bool needs_parent() const override { return disk_.layer_only; }
  io::Task<void> close() override { co_return; }

 private:
  io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                            uint64_t& until) override {
    co_return ranges_of(co_await chain_->extents(offset, length, kExtentsAtOnce), offset, until);
  }

  /// The clusters of the image itself: data, and zeroes that hide what lies below.
  io::Task<std::vector<CopyRange>> plan_changed(uint64_t offset, uint64_t length,
                                                uint64_t& until) override {
    std::vector<CopyRange> own;
    until = offset;
    for (const io::Extent& extent : co_await chain_->extents(offset, length, kExtentsAtOnce)) {
      if (extent.depth == 1) own.push_back({until, extent.length, extent.zero});
      until += extent.length;
    }
    co_return own;
  }
  bool knows_changes() const override { return disk_.layer_only; }

  io::Runtime runtime_;
  std::unique_ptr<qcow::Chain> chain_;
};

}  // namespace

io::Task<std::unique_ptr<PullSource>> open_image_source(io::Runtime runtime, PullDisk disk,
                                                        std::string path) {
  qcow::ChainOptions options;
  options.alone = disk.layer_only;
  auto chain = co_await qcow::Chain::open(runtime, std::move(path), options);
  co_return std::make_unique<ImageSource>(runtime, std::move(disk), std::move(chain));
}

}  // namespace app
