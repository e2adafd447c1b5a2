// SPDX-License-Identifier: Apache-2.0
#include "qcow/chain/sums_reader.h"

#include <algorithm>

#include "qcow/chain/layer.h"
#include "qcow/format/format_error.h"

namespace qcow {

SumsReader::SumsReader(std::unique_ptr<io::File> file, std::string name)
    : file_(std::move(file)), name_(std::move(name)) {}

io::Task<std::unique_ptr<SumsReader>> SumsReader::open(io::FileSystem& files, std::string path) {
  auto file = co_await files.open(path, io::OpenMode::read_only);
  std::unique_ptr<SumsReader> reader(new SumsReader(std::move(file), image_name_of(path)));
  co_await reader->load();
  co_return reader;
}

io::Task<void> SumsReader::load() {
  const uint64_t file_bytes = co_await file_->size();
  if (file_bytes < SumsFooter::kBytes) throw FormatError(name_, "the manifest is too short");
  std::vector<std::byte> end(SumsFooter::kBytes);
  co_await file_->read(file_bytes - end.size(), end);
  footer_ = SumsFooter::decode(end, file_bytes, name_);
  std::vector<std::byte> index(footer_.block_count * SumIndexEntry::kBytes);
  co_await file_->read(footer_.index_offset, index);
  if (check_of(index) != footer_.index_check) throw FormatError(name_, "the index is damaged");
  index_ = decode_sum_index(index, footer_.index_offset, name_);
}

io::Task<std::optional<SumBlock>> SumsReader::block(uint64_t l1_index) {
  const auto entry = std::ranges::lower_bound(index_, l1_index, {}, &SumIndexEntry::l1_index);
  if (entry == index_.end() || entry->l1_index != l1_index) co_return std::nullopt;
  const uint64_t end = entry + 1 == index_.end() ? footer_.index_offset : (entry + 1)->offset;
  const uint32_t clusters = uint32_t{1} << (footer_.cluster_bits - 3);
  if (end - entry->offset > SumBlock::bytes_max(clusters)) {
    throw FormatError(name_, "the index is out of order");
  }
  std::vector<std::byte> bytes(end - entry->offset);
  co_await file_->read(entry->offset, bytes);
  co_return decode_sum_block(bytes, l1_index, clusters, name_);
}

}  // namespace qcow
