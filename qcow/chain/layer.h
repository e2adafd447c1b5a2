// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/chain/locks.h"
#include "qcow/format/entries.h"
#include "qcow/format/header.h"

namespace qcow {

/// Reads and decodes cluster 0 of an open file. Throws FormatError (RF1–RF14).
io::Task<Header> read_header(io::File& file, std::string image_name,
                             Header::DecodeOptions options = Header::DecodeOptions());

/// The last part of a path, the name that errors show.
std::string image_name_of(std::string_view path);

/// One image file, open for reading only: its header and its L1 table in memory, its clusters on
/// request. Knows nothing of parents; that is Chain's part.
///
/// Belongs to one executor thread.
class Layer {
 public:
  struct OpenOptions {
    bool lock = true;      ///< hold a reader's locks while open (LK2)
    bool salvage = false;  ///< read images with the corrupt bit (RF7)
  };
  static io::Task<std::unique_ptr<Layer>> open(io::Runtime runtime, std::string path,
                                               OpenOptions options);

  const std::string& path() const { return path_; }
  const std::string& name() const { return name_; }
  const Header& header() const { return header_; }
  const Geometry& geometry() const { return geometry_; }
  uint64_t file_bytes() const { return file_bytes_; }
  const ImageLock& lock() const { return lock_; }
  void release_lock() { lock_ = ImageLock(); }

  /// The raw L1 entry; 0 (unallocated) past the end of the table.
  uint64_t raw_l1_entry(uint64_t l1_index) const {
    return l1_index < l1_.size() ? l1_[l1_index] : 0;
  }

  /// Host clusters from here on lie past the end of the file; entries that name them are corrupt.
  bool is_inside_file(HostOffset at) const { return at.bytes < file_bytes_; }

  /// Raw entries `first` … of the L2 table at `table`, as many as `into` takes; they stay inside
  /// the table.
  io::Task<void> read_l2_entries(HostOffset table, uint64_t first, std::span<uint64_t> into);

  /// Bytes of data clusters, straight into place. Past the end of the file: zeroes.
  io::Task<void> read_data(HostOffset at, std::span<std::byte> into);

  /// The whole content of one compressed cluster. Throws FormatError when its stream is damaged.
  io::Task<void> read_compressed(Mapping mapping, GuestOffset guest, std::span<std::byte> cluster);

 private:
  Layer(io::Runtime runtime, std::string path, std::unique_ptr<io::File> file);
  io::Task<void> load(OpenOptions options);
  io::Task<void> read_l1();

  io::Runtime runtime_;
  std::string path_;
  std::string name_;
  std::unique_ptr<io::File> file_;
  ImageLock lock_;  // after file_: given back before the file closes
  uint64_t file_bytes_ = 0;
  Header header_;
  Geometry geometry_;
  std::vector<uint64_t> l1_;
};

}  // namespace qcow
