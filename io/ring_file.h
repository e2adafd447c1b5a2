// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "io/file.h"
#include "io/owned_fd.h"
#include "io/ring.h"

namespace io {

/// A file on a ring. Where the file system allows O_DIRECT it holds two descriptors, and every
/// call picks one: aligned writes go directly to the disk, and so do large aligned reads of what is
/// not in the page cache; all else goes through it. The kernel keeps the two views coherent as long
/// as no two calls under way touch the same page, which is the caller's duty as for any overlapping
/// writes.
class RingFile final : public File {
 public:
  /// `direct` may be invalid; `direct_alignment` is 1 then.
  RingFile(Ring& ring, std::string path, OwnedFd cached, OwnedFd direct, uint32_t direct_alignment);

  const std::string& path() const override { return path_; }
  uint32_t direct_alignment() const override { return direct_alignment_; }
  void use_page_cache() override {
    direct_ = OwnedFd();
    direct_alignment_ = 1;
  }
  Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  Task<void> write(uint64_t offset, std::span<const std::byte> from) override;
  Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) override;
  Task<void> sync_data() override;
  Task<void> sync() override;
  Task<uint64_t> size() override;
  Task<void> truncate(uint64_t size) override;
  Task<bool> allocate(uint64_t offset, uint64_t length) override;
  Task<bool> punch_hole(uint64_t offset, uint64_t length) override;
  Task<void> forget_cached() override;
  Task<uint64_t> allocated_bytes() override;
  bool lock_byte_shared(uint64_t at) override;
  void unlock_byte(uint64_t at) override;
  bool byte_is_locked_elsewhere(uint64_t at) override;
  Task<bool> is_open_elsewhere() override;

 private:
  int first_description() const { return direct_.valid() ? direct_.get() : cached_.get(); }
  int descriptor_for_write(uint64_t offset, std::span<const iovec> pieces) const;
  int descriptor_for_read(uint64_t offset, std::span<const std::byte> into) const;
  bool aligned(uint64_t offset, const void* address, uint64_t length) const;
  Task<void> synchronise(unsigned flags);
  Task<bool> change_allocation(int mode, const char* verb, uint64_t offset, uint64_t length);

  Ring& ring_;
  std::string path_;
  OwnedFd cached_;
  OwnedFd direct_;
  uint32_t direct_alignment_;
  std::set<uint64_t> locked_;  ///< bytes, on both
};

}  // namespace io
