// SPDX-License-Identifier: Apache-2.0
// The decoders of a manifest (qcow/format/sums.h). The first byte of the input says which: bit 0
// and 1 the decoder, bit 2 that the checks over what follows are made right first, so that what
// stands behind them is reached. What is accepted encodes to the bytes that were decoded.
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "io/big_endian.h"
#include "qcow/format/format_error.h"
#include "qcow/format/sums.h"

namespace {

using Bytes = std::vector<std::byte>;

constexpr uint32_t kClusters = 8192;
constexpr size_t kBlockCheckAt = 8, kBlockBodyAt = 16;
constexpr size_t kFooterCheckAt = 56;
constexpr uint64_t kFileBytes = 4096;
constexpr uint64_t kIndexOffset = 1 << 20;

void require(bool holds) {
  if (!holds) std::abort();
}

/// The block as a writer makes it, cluster by cluster: it knows no runs that touch or overlap.
qcow::SumBlock made_again(const qcow::SumBlock& block) {
  qcow::SumBlock made{.l1_index = block.l1_index};
  auto sum = block.sums.begin();
  for (const qcow::SumRun& run : block.runs) {
    require(run.end() <= kClusters);
    for (uint32_t index = run.first; index < run.end(); ++index) {
      if (run.kind == qcow::SumKind::zero) {
        made.add_zero(index);
      } else {
        made.add_data(index, *sum++);
      }
    }
  }
  return made;
}

void decode_block(Bytes bytes, bool mended) {
  if (mended && bytes.size() >= kBlockBodyAt) {
    io::store_be(&bytes[kBlockCheckAt], qcow::check_of(std::span(bytes).subspan(kBlockBodyAt)));
  }
  const qcow::SumBlock block = qcow::decode_sum_block(bytes, 3, kClusters, "fuzz");
  require(qcow::encode(block) == bytes);
  require(made_again(block) == block);
  require(bytes.size() <= qcow::SumBlock::bytes_max(kClusters));
}

void decode_index(const Bytes& bytes) {
  const auto index = qcow::decode_sum_index(bytes, kIndexOffset, "fuzz");
  const Bytes again = qcow::encode(index);
  require(again.size() <= bytes.size() &&
          std::memcmp(again.data(), bytes.data(), again.size()) == 0);
}

void decode_footer(Bytes bytes, bool mended) {
  if (mended && bytes.size() >= qcow::SumsFooter::kBytes) {
    io::store_be(&bytes[kFooterCheckAt], qcow::check_of(std::span(bytes).first(kFooterCheckAt)));
  }
  const auto footer = qcow::SumsFooter::decode(bytes, kFileBytes, "fuzz");
  const Bytes again = footer.encode();
  require(std::memcmp(again.data(), bytes.data(), again.size()) == 0);
  require(footer.index_offset <= kFileBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const unsigned form = data[0];
  const auto rest = std::as_bytes(std::span(data, size)).subspan(1);
  Bytes bytes(rest.begin(), rest.end());
  const bool mended = (form & 4) != 0;
  try {
    switch (form & 3) {
      case 0:
        decode_block(std::move(bytes), mended);
        break;
      case 1:
        decode_index(bytes);
        break;
      default:
        decode_footer(std::move(bytes), mended);
    }
  } catch (const qcow::FormatError&) {
  }
  return 0;
}
