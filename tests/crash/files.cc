#include "tests/crash/files.h"

#include <algorithm>
#include <cerrno>

#include "io/failure.h"

namespace crash {

/// An open file. Locks are always granted: the simulation has one process.
class Files::SimFile final : public io::File {
 public:
  SimFile(Files& files, std::string path, FileId id)
      : files_(files), path_(std::move(path)), id_(id) {}

  const std::string& path() const override { return path_; }
  uint32_t direct_alignment() const override { return kSector; }

  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override {
    co_await files_.scheduler_.turn(Turn::read);
    files_.disk_.read(id_, offset, into);
  }

  io::Task<void> write(uint64_t offset, std::span<const std::byte> from) override {
    Disk& disk = files_.disk_;
    const uint64_t operation = disk.begin_write(id_, offset, from);
    co_await files_.scheduler_.turn(Turn::write);
    if (files_.faults.write_at == files_.faults.writes++) {
      disk.failed(operation);
      throw io::failure("write", path_, offset, from.size(), files_.faults.error);
    }
    disk.end_write(operation, id_, offset, from);
  }

  io::Task<void> write_gathered(uint64_t offset, std::span<const iovec> pieces) override {
    Bytes all;
    for (const iovec& piece : pieces) {
      const auto* const from = static_cast<const std::byte*>(piece.iov_base);
      all.insert(all.end(), from, from + piece.iov_len);
    }
    co_await write(offset, all);
  }

  io::Task<void> sync_data() override {
    const uint64_t operation = files_.disk_.begin_sync(id_);
    co_await files_.scheduler_.turn(Turn::sync);
    if (files_.faults.sync_at == files_.faults.syncs++) {
      files_.disk_.sync_failed(operation);
      throw io::failure("sync", path_, files_.faults.error);
    }
    files_.disk_.done(operation);
  }
  io::Task<void> sync() override { return sync_data(); }

  io::Task<uint64_t> size() override {
    co_await files_.scheduler_.turn(Turn::read);
    co_return files_.disk_.size(id_);
  }

  io::Task<void> truncate(uint64_t size) override {
    const uint64_t operation = files_.disk_.begin_resize(id_, size, false);
    co_await files_.scheduler_.turn(Turn::write);
    files_.disk_.end_resize(operation, id_, size);
  }

  io::Task<bool> allocate(uint64_t offset, uint64_t length) override {
    co_await files_.scheduler_.turn(Turn::write);
    if (!files_.faults.allocate_works) co_return false;
    const uint64_t size = std::max(files_.disk_.size(id_), offset + length);
    const uint64_t operation = files_.disk_.begin_resize(id_, size, true);
    co_await files_.scheduler_.turn(Turn::write);
    // Writes may have made it longer meanwhile.
    files_.disk_.end_resize(operation, id_, std::max(files_.disk_.size(id_), size));
    co_return true;
  }

  io::Task<bool> punch_hole(uint64_t offset, uint64_t length) override {
    if (!files_.faults.punch_works) co_return false;
    const uint64_t size = files_.disk_.size(id_);
    if (offset >= size) co_return true;
    const Bytes zeroes(std::min(length, size - offset));
    const uint64_t operation = files_.disk_.begin_write(id_, offset, zeroes);
    co_await files_.scheduler_.turn(Turn::write);
    files_.disk_.end_write(operation, id_, offset, zeroes);
    co_return true;
  }

  io::Task<uint64_t> allocated_bytes() override { return size(); }
  bool lock_byte_shared(uint64_t) override { return true; }
  void unlock_byte(uint64_t) override {}
  bool byte_is_locked_elsewhere(uint64_t) override { return false; }

 private:
  Files& files_;
  std::string path_;
  FileId id_;
};

std::string Files::follow_links(std::string path) const {
  const Node* const node = disk_.find(path);
  if (node == nullptr || !node->is_link()) return path;
  const std::string& target = node->link_target;
  return target.front() == '/' ? target : directory_of(path) + "/" + target;
}

io::Task<void> Files::change_names(std::string directory, Disk::Changes changes) {
  const uint64_t operation = disk_.begin_names(directory, changes);
  co_await scheduler_.turn(Turn::name);
  disk_.end_names(operation, changes);
}

io::Task<std::unique_ptr<io::File>> Files::open(std::string path, io::OpenMode mode) {
  path = follow_links(std::move(path));
  const bool create = mode == io::OpenMode::create_new || mode == io::OpenMode::create_private;
  const Node* const node = disk_.find(path);
  if (create && node != nullptr) throw io::failure("create", path, EEXIST);
  if (!create && node == nullptr) throw io::failure("open", path, ENOENT);
  FileId id = create ? disk_.new_file() : node->file;
  if (create) {
    const std::string directory = directory_of(path);
    if (!disk_.is_directory(directory)) throw io::failure("create", path, ENOENT);
    Disk::Changes changes;
    changes.emplace_back(path, Node{id, {}});
    co_await change_names(directory, std::move(changes));
  }
  co_return std::make_unique<SimFile>(*this, path, id);
}

io::Task<void> Files::rename(std::string from, std::string to, bool replace) {
  const Node* const node = disk_.find(from);
  if (node == nullptr) throw io::failure("rename", from, ENOENT);
  if (!replace && disk_.find(to) != nullptr) throw io::failure("rename", to, EEXIST);
  Disk::Changes changes;
  changes.emplace_back(to, *node);
  changes.emplace_back(from, Node{});
  co_await change_names(directory_of(to), std::move(changes));
}

io::Task<void> Files::remove(std::string path) {
  if (disk_.find(path) == nullptr) throw io::failure("remove", path, ENOENT);
  Disk::Changes changes;
  changes.emplace_back(path, Node{});
  co_await change_names(directory_of(path), std::move(changes));
}

io::Task<void> Files::remove_directory(std::string path) {
  co_await scheduler_.turn(Turn::name);
  for (const auto& [name, node] : disk_.names()) {
    if (directory_of(name) == path) throw io::failure("remove directory", path, ENOTEMPTY);
  }
  disk_.remove_directory(path);
}

io::Task<void> Files::make_directories(std::string path) {
  co_await scheduler_.turn(Turn::name);
  for (std::string at = path; at != "/" && !disk_.is_directory(at); at = directory_of(at)) {
    disk_.make_directory(at);
  }
}

io::Task<void> Files::make_symlink(std::string target, std::string link) {
  if (disk_.find(link) != nullptr) throw io::failure("link", link, EEXIST);
  Disk::Changes changes;
  changes.emplace_back(link, Node{kNoFile, target});
  co_await change_names(directory_of(link), std::move(changes));
}

io::Task<void> Files::sync_directory(std::string path) {
  const uint64_t operation = disk_.begin_sync_names(path);
  co_await scheduler_.turn(Turn::sync);
  disk_.done(operation);
}

io::Task<std::vector<io::DirectoryEntry>> Files::list(std::string path) {
  co_await scheduler_.turn(Turn::read);
  if (!disk_.is_directory(path)) throw io::failure("list", path, ENOENT);
  std::vector<io::DirectoryEntry> entries;
  for (const auto& [name, node] : disk_.names()) {
    if (directory_of(name) != path) continue;
    const auto kind = node.is_link() ? io::FileKind::symlink : io::FileKind::file;
    entries.push_back({name.substr(path.size() + 1), kind});
  }
  for (const std::string& directory : disk_.directories()) {
    if (directory != path && directory_of(directory) == path) {
      entries.push_back({directory.substr(path.size() + 1), io::FileKind::directory});
    }
  }
  co_return entries;
}

io::Task<std::optional<io::FileStatus>> Files::status(std::string path, bool follow) {
  co_await scheduler_.turn(Turn::read);
  if (follow) path = follow_links(std::move(path));
  std::optional<io::FileStatus> status;
  if (disk_.is_directory(path)) {
    status = io::FileStatus{.kind = io::FileKind::directory, .device = 1, .inode = 1};
  } else if (const Node* const node = disk_.find(path)) {
    status = io::FileStatus{.kind = io::FileKind::symlink, .device = 1, .inode = 2 + node->file};
    if (!node->is_link()) {
      status->kind = io::FileKind::file;
      status->size = status->allocated_bytes = disk_.size(node->file);
    }
  }
  co_return status;
}

io::Task<std::string> Files::resolve(std::string path) {
  co_await scheduler_.turn(Turn::read);
  co_return follow_links(std::move(path));
}

io::Task<io::SpaceStatus> Files::space(std::string) {
  co_await scheduler_.turn(Turn::read);
  co_return io::SpaceStatus{.total_bytes = uint64_t{1} << 40, .available_bytes = uint64_t{1} << 39};
}

}  // namespace crash
