// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <system_error>

#include "app/nbd_connection.h"
#include "app/pull/listed_source.h"
#include "io/outcome.h"

namespace app {
namespace {

using engine::CopyRange;

/// A dirty range shorter than this is read sooner than asked about, and zeroes are found on the
/// way.
constexpr uint64_t kAskedAboutFrom = 256 << 10;

/// An export of an NBD server. The first connection tells what has changed, or what is zero; with a
/// bitmap another one, where there is one, tells what is zero: QEMU refuses BLOCK_STATUS outside a
/// backup's bitmap for all contexts of a connection. All but that one carry data.
class NbdSource final : public ListedSource {
 public:
  explicit NbdSource(PullDisk disk) : ListedSource(std::move(disk)) {}

  io::Task<void> open(io::Ring& ring, io::Runtime runtime, const PullOptions& options) {
    const nbd::Uri uri = nbd::parse_uri(disk_.source);
    const auto connected = [&](uint32_t count, std::vector<std::string> contexts) {
      return connect_all(ring, runtime, uri, count, options.tls, std::move(contexts));
    };
    const bool by_bitmap = !disk_.bitmap.empty() && !options.full;
    const std::string allocation = "base:allocation";
    const std::string context = by_bitmap ? "qemu:dirty-bitmap:" + disk_.bitmap : allocation;
    clients_ = co_await connected(1, std::vector<std::string>(1, context));
    if (by_bitmap && clients_.front()->contexts().empty()) {
      throw std::runtime_error(
          fmt::format("{} has no context {}: is the bitmap exported?", disk_.source, context));
    }
    knows_changes_ = by_bitmap;
    const bool takes_more = clients_.front()->info().has(nbd::kCanMultiConn);
    if (by_bitmap && takes_more) {
      const auto asking = [&] { return connected(1, std::vector<std::string>(1, allocation)); };
      auto one = co_await io::attempt(asking);
      if (!one.failed()) allocation_ = std::move(one.take().front());
    }
    const bool is_alone = by_bitmap && takes_more && !allocation_;
    if (takes_more && !is_alone && options.connections > 1) {
      const auto asking = [&] { return connected(options.connections - 1, {}); };
      auto more = co_await io::attempt(asking);
      if (!more.failed()) std::ranges::move(more.take(), std::back_inserter(clients_));
    }
    for (const auto& client : clients_) require_same_size(disk_.source, size(), client->size());
    if (allocation_) require_same_size(disk_.source, size(), allocation_->size());
    read_list();
  }
  uint64_t size() const override { return clients_.front()->size(); }
  std::vector<io::BlockDevice*> devices() override {
    std::vector<io::BlockDevice*> devices;
    for (const auto& client : clients_) devices.push_back(client.get());
    return devices;
  }
  uint64_t block_bytes() const override { return clients_.front()->info().block_bytes_min; }
  io::Task<void> trim(uint64_t offset, uint64_t length) override {
    return clients_.front()->discard(offset, length);
  }
  bool can_trim() const override {
    const nbd::ExportInfo& info = clients_.front()->info();
    return info.has(nbd::kSendTrim) && !info.has(nbd::kReadOnly);
  }
  void abort() noexcept override {
    for (const auto& client : clients_) client->abort();
    if (allocation_) allocation_->abort();
  }
  io::Task<void> close() override {
    for (const auto& client : clients_) co_await client->close();
    if (allocation_) co_await allocation_->close();
  }

 private:
  io::Task<std::vector<CopyRange>> plan_all(uint64_t offset, uint64_t length,
                                            uint64_t& until) override {
    nbd::Client* const teller = knows_changes_ ? allocation_.get() : clients_.front().get();
    if (teller && !allocation_refused_) {
      try {
        co_return ranges_of(co_await teller->extents(offset, length, kExtentsAtOnce), offset,
                            until);
      } catch (const std::system_error&) {
        allocation_refused_ = true;  // a server need not know; what is read tells
      }
    }
    until = offset + length;
    co_return std::vector<CopyRange>(1, CopyRange{offset, length, false});
  }

  io::Task<std::vector<CopyRange>> plan_changed(uint64_t offset, uint64_t length,
                                                uint64_t& until) override {
    const std::vector<nbd::StatusPayload> answers =
        co_await clients_.front()->block_status(offset, length);
    until = offset;
    std::vector<CopyRange> ranges;
    for (const nbd::StatusPayload& answer : answers) {
      if (answer.context_id != clients_.front()->contexts().front().id) continue;
      for (const nbd::StatusRun& run : answer.runs) {
        const uint64_t part = std::min(run.length, offset + length - until);
        if ((run.flags & 1) != 0 && part > 0) co_await add_dirty(until, part, ranges);
        until += part;
      }
    }
    if (until <= offset) {
      throw std::runtime_error(
          fmt::format("{} says nothing about bitmap {}", disk_.source, disk_.bitmap));
    }
    co_return in_blocks(ranges, block_bytes(), offset, until);
  }

  bool knows_changes() const override { return knows_changes_; }

  /// A dirty range, with what of it is known to be zero.
  io::Task<void> add_dirty(uint64_t offset, uint64_t length, std::vector<CopyRange>& ranges) {
    if (length < kAskedAboutFrom) {
      ranges.push_back({offset, length, false});
      co_return;
    }
    for (const uint64_t end = offset + length; offset < end;) {
      uint64_t until = offset;
      const auto parts = co_await plan_all(offset, end - offset, until);
      ranges.insert(ranges.end(), parts.begin(), parts.end());
      offset = until;
    }
  }

  std::vector<std::unique_ptr<nbd::Client>> clients_;
  std::unique_ptr<nbd::Client> allocation_;  // with a bitmap only
  bool knows_changes_ = false, allocation_refused_ = false;
};

}  // namespace

io::Task<std::unique_ptr<PullSource>> open_nbd_source(io::Ring& ring, io::Runtime runtime,
                                                      PullDisk disk, const PullOptions& options) {
  auto source = std::make_unique<NbdSource>(std::move(disk));
  io::Outcome<> opened = co_await io::attempt([&] { return source->open(ring, runtime, options); });
  if (opened.failed()) co_await source->close();
  opened.take();
  co_return source;
}

}  // namespace app
