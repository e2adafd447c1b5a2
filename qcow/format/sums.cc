// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/sums.h"

#include <fmt/format.h>
// Finds out what the processor can do: three times as fast as what every processor can.
#include <xxh_x86dispatch.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstring>
#include <numeric>

#include "io/big_endian.h"
#include "qcow/format/format_error.h"

namespace qcow {
namespace {

constexpr std::string_view kMagic = "VARVSUMS";
constexpr size_t kBlockHeadBytes = 16, kRunBytes = 8;
constexpr uint32_t kZeroBit = uint32_t{1} << 31;

/// Where the clusters of a run may not begin, and what it must not touch.
void require_order(const SumRun* before, const SumRun& run, uint32_t clusters,
                   std::string_view file) {
  const bool overlaps = before != nullptr && run.first < before->end();
  const bool touches = before != nullptr && run.first == before->end() && run.kind == before->kind;
  if (run.count == 0 || overlaps || touches || run.first >= clusters ||
      run.count > clusters - run.first) {
    throw FormatError(file, fmt::format("a run of clusters {} to {} is out of order", run.first,
                                        uint64_t{run.first} + run.count));
  }
}

}  // namespace

Sum sum_of(std::span<const std::byte> cluster) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(cluster.data(), cluster.size()));
  Sum sum;
  static_assert(sizeof canonical.digest == sizeof sum);
  std::memcpy(sum.data(), canonical.digest, sum.size());
  return sum;
}

std::string sum_text(const Sum& sum) {
  std::string text;
  for (const std::byte byte : sum) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

std::optional<Sum> sum_from_text(std::string_view text) {
  Sum sum{};
  if (text.size() != 2 * sum.size()) return std::nullopt;
  for (size_t i = 0; i < sum.size(); ++i) {
    const char* const at = text.data() + 2 * i;
    uint8_t byte = 0;
    const auto [end, error] = std::from_chars(at, at + 2, byte, 16);
    if (error != std::errc() || end != at + 2) return std::nullopt;
    sum[i] = std::byte{byte};
  }
  return sum;
}

uint64_t check_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

void SumBlock::add(uint32_t index, SumKind kind) {
  assert(runs.empty() || index >= runs.back().end());
  if (!runs.empty() && runs.back().kind == kind && runs.back().end() == index) {
    ++runs.back().count;
  } else {
    runs.push_back({index, 1, kind});
  }
}

void SumBlock::add_data(uint32_t index, const Sum& sum) {
  add(index, SumKind::data);
  sums.push_back(sum);
}

void SumBlock::add_zero(uint32_t index) { add(index, SumKind::zero); }

uint64_t SumBlock::bytes_max(uint32_t clusters) {
  return kBlockHeadBytes + clusters * (kRunBytes + sizeof(Sum));
}

std::vector<std::byte> encode(const SumBlock& block) {
  std::vector<std::byte> bytes(kBlockHeadBytes + block.runs.size() * kRunBytes +
                               block.sums.size() * sizeof(Sum));
  const std::span<std::byte> body = std::span(bytes).subspan(kBlockHeadBytes);
  io::BigEndianWriter out(body);
  for (const SumRun& run : block.runs) {
    out.put(run.first).put(run.count | (run.kind == SumKind::zero ? kZeroBit : 0));
  }
  for (const Sum& sum : block.sums) out.put_bytes(sum);
  io::BigEndianWriter head(bytes);
  head.put(static_cast<uint32_t>(block.runs.size())).put(static_cast<uint32_t>(block.sums.size()));
  head.put(check_of(body));
  return bytes;
}

SumBlock decode_sum_block(std::span<const std::byte> bytes, uint64_t l1_index, uint32_t clusters,
                          std::string_view file) {
  const auto refuse = [&](std::string_view what) -> FormatError {
    return FormatError(file, fmt::format("the block of L2 table {} {}", l1_index, what));
  };
  if (bytes.size() < kBlockHeadBytes) throw refuse("ends too early");
  io::BigEndianReader in(bytes);
  const uint64_t run_count = in.take<uint32_t>(), sum_count = in.take<uint32_t>();
  const auto check = in.take<uint64_t>();
  if (in.left() != run_count * kRunBytes + sum_count * sizeof(Sum)) {
    throw refuse("is not as long as it says");
  }
  if (check != check_of(bytes.subspan(kBlockHeadBytes))) throw refuse("is damaged");
  SumBlock block{.l1_index = l1_index};
  uint64_t data = 0;
  for (uint64_t i = 0; i < run_count; ++i) {
    SumRun run{.first = in.take<uint32_t>()};
    const auto count = in.take<uint32_t>();
    run.count = count & ~kZeroBit;
    run.kind = (count & kZeroBit) != 0 ? SumKind::zero : SumKind::data;
    require_order(block.runs.empty() ? nullptr : &block.runs.back(), run, clusters, file);
    if (run.kind == SumKind::data) data += run.count;
    block.runs.push_back(run);
  }
  if (data != sum_count) throw refuse("has not one sum for each cluster");
  block.sums.resize(sum_count);
  for (Sum& sum : block.sums) std::ranges::copy(in.take_bytes(sum.size()), sum.begin());
  return block;
}

std::vector<std::byte> encode(std::span<const SumIndexEntry> index) {
  std::vector<std::byte> bytes(index.size() * SumIndexEntry::kBytes);
  io::BigEndianWriter out(bytes);
  for (const SumIndexEntry& entry : index) out.put(entry.l1_index).put(entry.offset);
  return bytes;
}

std::vector<SumIndexEntry> decode_sum_index(std::span<const std::byte> bytes, uint64_t index_offset,
                                            std::string_view file) {
  io::BigEndianReader in(bytes);
  std::vector<SumIndexEntry> index;
  while (in.left() >= SumIndexEntry::kBytes) {
    SumIndexEntry entry;
    entry.l1_index = in.take<uint64_t>();
    entry.offset = in.take<uint64_t>();
    const bool is_behind = index.empty() ? entry.offset == 0
                                         : entry.l1_index > index.back().l1_index &&
                                               entry.offset > index.back().offset;
    if (!is_behind || entry.offset >= index_offset) {
      throw FormatError(file,
                        fmt::format("the index is out of order at L2 table {}", entry.l1_index));
    }
    index.push_back(entry);
  }
  if (index.empty() && index_offset != 0) throw FormatError(file, "the index names no block");
  return index;
}

std::vector<std::byte> SumsFooter::encode() const {
  std::vector<std::byte> bytes(kBytes);
  io::BigEndianWriter out(bytes);
  out.put(index_check).put(index_offset).put(block_count).put(virtual_bytes);
  out.put_bytes(image_uuid).put(cluster_bits).put(kVersion);
  out.put(check_of(std::span(bytes).first(out.written()))).put_text(kMagic);
  assert(out.written() == kBytes);
  return bytes;
}

SumsFooter SumsFooter::decode(std::span<const std::byte> bytes, uint64_t file_bytes,
                              std::string_view file) {
  if (bytes.size() < kBytes) throw FormatError(file, "the manifest is too short");
  io::BigEndianReader in(bytes);
  SumsFooter footer;
  footer.index_check = in.take<uint64_t>();
  footer.index_offset = in.take<uint64_t>();
  footer.block_count = in.take<uint64_t>();
  footer.virtual_bytes = in.take<uint64_t>();
  std::ranges::copy(in.take_bytes(footer.image_uuid.size()), footer.image_uuid.begin());
  footer.cluster_bits = in.take<uint32_t>();
  const auto version = in.take<uint32_t>();
  const auto covered = bytes.first(bytes.size() - in.left());
  const auto check = in.take<uint64_t>();
  if (in.take_text(kMagic.size()) != kMagic) throw FormatError(file, "not a manifest");
  if (check != check_of(covered)) throw FormatError(file, "the manifest's end is damaged");
  if (version != kVersion) {
    throw FormatError(file, fmt::format("version {} of the manifest is not known", version));
  }
  const uint64_t index_bytes = file_bytes - kBytes - footer.index_offset;
  if (footer.index_offset > file_bytes - kBytes ||
      index_bytes / SumIndexEntry::kBytes != footer.block_count ||
      index_bytes % SumIndexEntry::kBytes != 0) {
    throw FormatError(file, "the manifest is not as long as it says");
  }
  return footer;
}

}  // namespace qcow
