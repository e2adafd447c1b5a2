// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "tests/crash/files.h"

namespace crash {

/// An open file. Belongs to the process that opened it (Files::kill).
class SimFile final : public io::File {
 public:
  SimFile(Files& files, std::string path, FileId id);
  ~SimFile() override;

  const std::string& path() const override { return path_; }
  uint32_t direct_alignment() const override { return kSector; }
  void use_page_cache() override { cached_only_ = true; }

  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, std::span<const std::byte> from) override;
  io::Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) override;
  io::Task<void> sync_data() override;
  io::Task<void> sync() override { return sync_data(); }
  io::Task<uint64_t> size() override;
  io::Task<void> truncate(uint64_t size) override;
  io::Task<bool> allocate(uint64_t offset, uint64_t length) override;
  io::Task<bool> punch_hole(uint64_t offset, uint64_t length) override;
  io::Task<uint64_t> allocated_bytes() override { return size(); }
  bool lock_byte_shared(uint64_t at) override;
  void unlock_byte(uint64_t at) override;
  bool byte_is_locked_elsewhere(uint64_t at) override;
  io::Task<bool> is_open_elsewhere() override;

  bool killed() const { return process_->killed; }
  bool anything_in_flight() const { return in_flight_ > 0; }

 private:
  using Call = Faults::Call;
  /// A call that changes the file, under way: its lock outlives a kill until it is over.
  struct Flight {
    explicit Flight(SimFile& file) : file(file) { ++file.in_flight_; }
    Flight(const Flight&) = delete;
    ~Flight();
    SimFile& file;
  };

  io::Task<void> write_bytes(uint64_t offset, std::span<const std::byte> from, bool direct);
  io::Task<void> wait_to_land(Turn turn);
  void land(uint64_t operation, uint64_t offset, std::span<const std::byte> from);
  void note_pages(uint64_t operation, uint64_t offset, uint64_t length, bool direct);
  void require_alive(const char* verb) const;
  bool is_direct(uint64_t offset, const void* address, uint64_t length) const;

  Files& files_;
  const std::shared_ptr<Files::Process> process_;
  const std::string path_;
  const FileId id_;
  bool cached_only_ = false;
  uint32_t in_flight_ = 0;
};

}  // namespace crash
