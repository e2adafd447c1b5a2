// SPDX-License-Identifier: Apache-2.0
#include "app/pull/listed_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <stdexcept>

#include "io/counted.h"
#include "io/failure.h"
#include "io/http_url.h"
#include "nbd/uri.h"

namespace app {
namespace {

using engine::CopyRange;

/// A line of 40 bytes for each area that a list may have, and more.
constexpr uint64_t kListBytesMax = 32 << 20;

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kListBytesMax, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || !in.is_open()) throw io::failure("read", path, errno != 0 ? errno : EIO);
  if (!in.eof()) {
    throw std::runtime_error(
        fmt::format("{} is longer than {} bytes: list larger areas", path, kListBytesMax));
  }
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

}  // namespace

/// The ranges made longer, to whole blocks of the source; neighbours that meet become one.
std::vector<CopyRange> in_blocks(const std::vector<CopyRange>& ranges, uint64_t block,
                                 uint64_t from, uint64_t until) {
  if (block <= 1) return ranges;
  std::vector<CopyRange> whole;
  for (CopyRange range : ranges) {
    // A range of zeroes keeps its blocks only where it covers them: the rest of one may be data.
    const bool aligned = range.offset % block == 0 && range.length % block == 0;
    const uint64_t start = std::max(from, range.offset / block * block);
    const uint64_t end = std::min(until, (range.offset + range.length + block - 1) / block * block);
    range = {start, end - start, range.zero && aligned};
    if (!whole.empty() && whole.back().offset + whole.back().length > range.offset) {
      CopyRange& last = whole.back();
      last.length = std::max(last.offset + last.length, end) - last.offset;
      last.zero = last.zero && range.zero;
    } else {
      whole.push_back(range);
    }
  }
  return whole;
}

std::vector<CopyRange> ranges_of(const std::vector<io::Extent>& extents, uint64_t from,
                                 uint64_t& until) {
  std::vector<CopyRange> ranges;
  until = from;
  for (const io::Extent& extent : extents) {
    if (!ranges.empty() && ranges.back().zero == extent.zero) {
      ranges.back().length += extent.length;
    } else {
      ranges.push_back({until, extent.length, extent.zero});
    }
    until += extent.length;
  }
  return ranges;
}

io::Task<std::vector<CopyRange>> ListedSource::plan(uint64_t offset, uint64_t length,
                                                    uint64_t& until, bool everything) {
  if (areas_ && !everything) {
    until = offset + length;
    co_return in_blocks(areas_->within(offset, length), block_bytes(), offset, until);
  }
  if (everything || !knows_changes()) co_return co_await plan_all(offset, length, until);
  co_return co_await plan_changed(offset, length, until);
}

void ListedSource::read_list() {
  if (!disk_.changed.empty()) {
    areas_ = Areas::parse(read_text(disk_.changed), size(), disk_.changed);
  }
}

void ListedSource::require_same_size(const std::string& what, uint64_t before, uint64_t now) {
  if (now == before) return;
  throw std::runtime_error(fmt::format(
      "read {}: it had {} when the pull began and has {} now, so what was read of it is "
      "not one disk; pull from what does not change, a snapshot say",
      io::without_password(what), io::counted(before, "byte"), io::counted(now, "byte")));
}

io::Task<std::unique_ptr<PullSource>> PullSource::open(io::Ring& ring, io::Runtime runtime,
                                                       PullDisk disk, const PullOptions& options) {
  if (nbd::is_uri(disk.source)) {
    co_return co_await open_nbd_source(ring, runtime, std::move(disk), options);
  }
  if (disk.source.starts_with(kImagePrefix)) {
    std::string path = disk.source.substr(kImagePrefix.size());
    co_return co_await open_image_source(runtime, std::move(disk), std::move(path));
  }
  co_return co_await open_file_source(ring, runtime, std::move(disk));
}

}  // namespace app
