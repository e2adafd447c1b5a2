// SPDX-License-Identifier: Apache-2.0
// What guests write where a partition table or a superblock is looked for
// (engine/ingest/disk_layout.h): any bytes at all.
#include <cstdlib>
#include <span>

#include "engine/ingest/disk_layout.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto disk = std::as_bytes(std::span(data, size));
  std::vector<engine::LayoutItem> items;
  if (const auto table = engine::decode_partition_table(disk)) {
    if (table->partition_offsets.size() > engine::kPartitionsMax) std::abort();
    items.push_back(table->item);
  }
  if (auto found = engine::decode_superblock(disk, 4096)) items.push_back(*found);
  for (const engine::LayoutItem& item : items) {
    // They go into sentences.
    for (const char letter : item.id) {
      if (letter < ' ' || letter > '~') std::abort();
    }
  }
  if (!engine::compare_layouts(items, items).changes.empty()) std::abort();
  if (engine::compare_layouts(items, {}).changes.size() != items.size()) std::abort();
  return 0;
}
