// SPDX-License-Identifier: Apache-2.0
#include "io/big_endian.h"
#include "tests/crash/replay.h"

namespace crash {

namespace {

uint64_t word_or_0(const Bytes& file, uint64_t at) {
  return at + 8 <= file.size() ? io::load_be<uint64_t>(file.data() + at) : 0;
}
uint32_t half_or_0(const Bytes& file, uint64_t at) {
  return static_cast<uint32_t>(word_or_0(file, at) >> 32);
}

constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;

}  // namespace

Parts::Parts(const State& in_the_end) {
  for (const auto& [file, bytes] : in_the_end.files) {
    if (half_or_0(*bytes, 0) == 0x514649fb) images_[file] = parse(*bytes);
  }
}

Parts::Image Parts::parse(const Bytes& file) {
  Image image;
  image.cluster_bits = half_or_0(file, 20);
  const uint64_t cluster_bytes = uint64_t{1} << image.cluster_bits;
  image.clusters.resize(file.size() / cluster_bytes + 1);
  const auto mark = [&](uint64_t at, uint64_t bytes, Part part) {
    for (uint64_t c = at / cluster_bytes; c * cluster_bytes < at + bytes; ++c) {
      if (c < image.clusters.size()) image.clusters[c] = part;
    }
  };
  mark(0, 1, Part::header);
  const uint64_t l1_bytes = uint64_t{half_or_0(file, 36)} * 8, l1 = word_or_0(file, 40);
  mark(l1, l1_bytes, Part::l1);
  for (uint64_t at = l1; at < l1 + l1_bytes; at += 8) {
    if (const uint64_t table = word_or_0(file, at) & kOffsetMask) mark(table, 1, Part::l2);
  }
  const uint64_t table_bytes = half_or_0(file, 56) * cluster_bytes, table = word_or_0(file, 48);
  mark(table, table_bytes, Part::refcount_table);
  for (uint64_t at = table; at < table + table_bytes && at < file.size(); at += 8) {
    if (const uint64_t block = word_or_0(file, at)) mark(block, 1, Part::refcount_block);
  }
  return image;
}

Part Parts::at(FileId file, uint64_t offset) const {
  const auto found = images_.find(file);
  if (found == images_.end()) return Part::data;
  const uint64_t cluster = offset >> found->second.cluster_bits;
  const auto& clusters = found->second.clusters;
  return cluster < clusters.size() ? clusters[cluster] : Part::data;
}

}  // namespace crash
