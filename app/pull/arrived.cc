// SPDX-License-Identifier: Apache-2.0
#include "app/pull/arrived.h"

#include <algorithm>
#include <stdexcept>

namespace app {

using engine::CopyRange;

namespace {
constexpr size_t kExtentsAtOnce = 1024;
}  // namespace

Arrived::Arrived(nbd::Client& target) : target_(target) {
  const bool selected = std::ranges::any_of(
      target.contexts(), [](const nbd::OfferedContext& one) { return one.name == kContext; });
  // Without it everything would seem to have arrived.
  if (!selected) throw std::runtime_error("the server does not say what has arrived already");
}

io::Task<std::vector<CopyRange>> Arrived::without(std::vector<CopyRange> ranges) {
  std::vector<CopyRange> missing;
  for (const CopyRange& range : ranges) {
    const uint64_t end = range.offset + range.length;
    for (uint64_t at = range.offset; at < end;) {
      const std::vector<io::Extent> extents =
          co_await target_.extents(at, end - at, kExtentsAtOnce);
      for (const io::Extent& extent : extents) {
        const uint64_t length = std::min(extent.length, end - at);
        if (extent.depth == 1) {
          bytes_ += length;
        } else if (!missing.empty() && missing.back().zero == range.zero &&
                   missing.back().offset + missing.back().length == at && at > range.offset) {
          missing.back().length += length;
        } else {
          missing.push_back({at, length, range.zero});
        }
        at += length;
        if (at == end) break;
      }
    }
  }
  co_return missing;
}

}  // namespace app
