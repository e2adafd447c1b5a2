#include "tests/crash/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "io/failure.h"
#include "io/planted_bug.h"
#include "tests/crash/sim_file.h"

namespace crash {

bool Faults::strikes(Call kind) {
  if (call != kind || has_struck || at-- > 0) return false;
  has_struck = true;
  return true;
}

std::string Faults::text() const {
  static constexpr const char* kCalls[] = {"sync",     "write", "read",   "truncate",
                                           "allocate", "punch", "rename", "remove"};
  return call ? fmt::format("{} {} fails", kCalls[static_cast<size_t>(*call)], at) : "";
}

void Files::kill() {
  process_->killed = true;
  process_ = std::make_shared<Process>();
  disk_.forget_who_writes();
  for (const SimFile* const file : open_) {
    if (!file->killed()) continue;
    bool released = !file->anything_in_flight();
    PLANTED_BUG(lock_on_other_description, released = true)
    if (released) give_back_locks(file);
  }
}

void Files::give_back_locks(const SimFile* holder) {
  for (auto& [byte, holders] : locks_) holders.erase(holder);
}

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
  const Node* const node = disk_.find(path);
  const bool create = mode == io::OpenMode::create_new || mode == io::OpenMode::create_private ||
                      (mode == io::OpenMode::own_or_create && node == nullptr);
  if (create && node != nullptr) throw io::failure("create", path, EEXIST);
  if (node != nullptr && node->is_link()) throw io::failure("open", path, EINVAL);
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
  if (faults.strikes(Faults::Call::rename)) throw io::failure("rename", from, faults.error);
  Disk::Changes changes;
  changes.emplace_back(to, *node);
  changes.emplace_back(from, Node{});
  co_await change_names(directory_of(to), std::move(changes));
}

io::Task<void> Files::remove(std::string path) {
  if (disk_.find(path) == nullptr) throw io::failure("remove", path, ENOENT);
  if (faults.strikes(Faults::Call::remove)) throw io::failure("remove", path, faults.error);
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
