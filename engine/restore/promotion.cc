// SPDX-License-Identifier: Apache-2.0
#include "engine/restore/promotion.h"

#include <cerrno>
#include <system_error>

#include "engine/restore/copier.h"
#include "engine/restore/disk_file.h"
#include "engine/values/layout.h"
#include "io/outcome.h"
#include "qcow/chain/chain.h"
#include "qcow/chain/verified_chain.h"

namespace engine {
namespace {

/// Few against what a backup has in flight, because both run at the same time.
constexpr uint32_t kRequests = 8;

io::Task<void> copy_chain(io::Runtime data, io::BlockDevice& chain, DiskFile& file,
                          PromotionUnderWay& under_way) {
  const uint64_t before = under_way.copied_bytes;
  CopyOptions copying;
  copying.sources = {&chain};
  copying.targets = {&file.device()};
  copying.requests = kRequests;
  copying.target_is_zero = true;
  copying.on_progress = [&](const CopyProgress& progress) -> io::Task<void> {
    if (under_way.cancelled) {
      throw std::system_error(ECANCELED, std::generic_category(), "promote the restore");
    }
    under_way.copied_bytes = before + progress.done_until;
    co_return;
  };
  co_await copy_disk(data, std::move(copying));
}

}  // namespace

io::Task<void> copy_into_file(io::Runtime data, std::string image_path,
                              std::string repository_directory, std::string target,
                              DiskFormat format, bool verified,
                              std::shared_ptr<PromotionUnderWay> under_way) {
  qcow::ChainOptions options;
  options.repository_root = std::move(repository_directory);
  const std::string name = qcow::image_name_of(image_path);
  const auto chain = co_await qcow::Chain::open(data, std::move(image_path), options);
  // What the overlay has is known to no manifest, and read as it is.
  qcow::VerifiedChain compared(data, *chain, sums_path, name);
  io::BlockDevice& source = verified ? static_cast<io::BlockDevice&>(compared) : *chain;
  co_await DiskFile::create(data, target, format, chain->size());
  const auto file = co_await DiskFile::open(data, target, format);
  const auto copy = [&]() -> io::Task<void> {
    co_await copy_chain(data, source, *file, *under_way);
    co_await file->close();
  };
  io::Outcome<> copied = co_await io::attempt(copy);
  if (copied.failed()) co_await file->abandon();
  copied.take();
}

}  // namespace engine
