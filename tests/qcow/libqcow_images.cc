// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/libqcow_images.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

namespace qcow_test {

namespace {

std::string lines_of(const std::vector<Range>& ranges) {
  std::string text;
  for (const Range& range : ranges) text += fmt::format("{} {}\n", range.offset, range.length);
  return text;
}

/// LQ10: what the packaged libqcow answers wrongly or not at all.
std::string why_not(const qcow::Header& header) {
  if ((header.incompatible_features & ~qcow::kIncompatibleDirty) != 0) return "incompatible bits";
  if ((header.compatible_features & ~qcow::kCompatibleLazyRefcounts) != 0) return "compatible bits";
  if (header.crypt_method != 0) return "encryption";
  if (header.virtual_size == 0) return "size 0";
  const uint32_t length = header.header_length;
  if (header.version >= 3 && length != 104 && length != 112) return "header length";
  return "";
}

}  // namespace

double LibqcowImages::Plan::coverage(uint64_t size) const {
  return static_cast<double>(covered_bytes) / static_cast<double>(size);
}

LibqcowImages::Reading LibqcowImages::libqcow_read(const std::string& name, uint64_t piece_bytes,
                                                   const std::vector<Range>& ranges,
                                                   int patience_seconds,
                                                   const std::string& prefix) {
  std::string images;
  uint64_t size = 0;
  {
    const auto chain = open_chain(name);
    size = chain->size();
    for (size_t i = chain->layer_count(); i-- > 0;) images += " '" + chain->layer(i).path() + "'";
  }
  const std::string output = file("libqcow.out"), input = file("libqcow.in");
  std::ofstream(input) << lines_of(ranges);
  Reading reading;
  reading.result =
      support::run_command({"sh", "-c",
                            fmt::format("exec {} {} {} '{}'{} < '{}'", prefix, LIBQCOW_READER,
                                        piece_bytes, output, images, input)},
                           patience_seconds);
  if (reading.result.ok()) reading.content = read_file(output);
  reading.content.resize(size);
  return reading;
}

LibqcowImages::Reading LibqcowImages::libqcow_read_all(const std::string& name,
                                                       uint64_t piece_bytes) {
  const uint64_t size = open_chain(name)->size();
  return libqcow_read(name, piece_bytes, {{0, size}});
}

LibqcowImages::Plan LibqcowImages::plan(qcow::Chain& chain) {
  Plan plan;
  uint64_t end = chain.size();  // LQ12: never beyond the end of a shorter parent
  plan.piece_bytes = uint64_t{1} << qcow::kClusterBitsMax;
  for (size_t i = 0; i < chain.layer_count(); ++i) {
    const qcow::Header& header = chain.layer(i).header();
    if (plan.refused.empty()) plan.refused = why_not(header);
    end = std::min(end, header.virtual_size);
    plan.piece_bytes = std::min(plan.piece_bytes, header.geometry().cluster_bytes());
  }
  plan.left_out_bytes = chain.size() - end;
  for (uint64_t at = 0; plan.refused.empty() && at < end;) {
    for (const io::Extent& extent : run(chain.extents(at, end - at, 1000))) {
      if (extent.zero && extent.depth > 0) {
        plan.zero_flag_bytes += extent.length;
      } else {
        plan.ranges.push_back({at, extent.length});
        plan.covered_bytes += extent.length;
      }
      at += extent.length;
    }
  }
  return plan;
}

LibqcowImages::Plan LibqcowImages::expect_three_readers_agree(const std::string& name) {
  const Bytes walker = varve_content(name);
  EXPECT_TRUE(walker == qemu_content(name)) << name << ": walker and qemu differ";
  const auto chain = open_chain(name);
  const Plan safe = plan(*chain);
  EXPECT_EQ(safe.refused, "") << name;
  const Reading reading = libqcow_read(name, safe.piece_bytes, safe.ranges);
  EXPECT_TRUE(reading.result.ok()) << reading.result.output;
  for (const Range& range : safe.ranges) {
    const auto from = static_cast<long>(range.offset), to = from + static_cast<long>(range.length);
    EXPECT_TRUE(
        std::equal(walker.begin() + from, walker.begin() + to, reading.content.begin() + from))
        << name << ": walker and libqcow differ in " << range.offset << "+" << range.length;
  }
  return safe;
}

}  // namespace qcow_test
