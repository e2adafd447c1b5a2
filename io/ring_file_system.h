// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/file.h"
#include "io/ring.h"

namespace io {

/// The machine's file system, reached through a ring.
class RingFileSystem final : public FileSystem {
 public:
  explicit RingFileSystem(Ring& ring) : ring_(ring) {}

  Task<std::unique_ptr<File>> open(std::string path, OpenMode mode) override;
  Task<void> rename(std::string from, std::string to, bool replace) override;
  Task<void> remove(std::string path) override;
  Task<void> remove_directory(std::string path) override;
  Task<void> make_directories(std::string path) override;
  Task<void> make_symlink(std::string target, std::string link) override;
  Task<void> sync_directory(std::string path) override;
  Task<std::vector<DirectoryEntry>> list(std::string path) override;
  Task<std::optional<FileStatus>> status(std::string path, bool follow) override;
  Task<std::string> resolve(std::string path) override;
  Task<SpaceStatus> space(std::string path) override;

 private:
  Task<void> unlink(std::string path, int flags);
  Task<int32_t> rename_once(const std::string& from, const std::string& to, unsigned flags);
  Task<int32_t> link_and_unlink(const std::string& from, const std::string& to);
  Task<bool> are_one_file(const std::string& one, const std::string& other);

  Ring& ring_;
};

}  // namespace io
