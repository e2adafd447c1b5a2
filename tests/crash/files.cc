// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <utility>

#include "io/failure.h"
#include "io/planted_bug.h"
#include "tests/crash/sim_file.h"

namespace crash {

bool Faults::strikes(Call kind, const std::string& path) {
  if (call != kind || has_struck || path.find(of) == std::string::npos) return false;
  if (at-- > 0) return false;
  struck_path = path;
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
  const Node* const node = find(path);
  if (node == nullptr || !node->is_link()) return path;
  const std::string& target = node->link_target;
  return target.front() == '/' ? target : directory_of(path) + "/" + target;
}

static bool is_below(const std::string& path, const std::string& directory) {
  if (directory.empty() || !path.starts_with(directory)) return false;
  return path.size() == directory.size() || path[directory.size()] == '/';
}

const Node* Files::find(const std::string& path) const {
  return is_below(path, gone) ? nullptr : disk_.find(path);
}

bool Files::is_directory(const std::string& path) const {
  return !is_below(path, gone) && disk_.is_directory(path);
}

void Files::require_writable(const char* verb, const std::string& path) const {
  if (is_below(path, gone)) throw io::failure(verb, path, ENOENT);
  if (is_below(path, read_only)) throw io::failure(verb, path, EROFS);
}

io::Task<void> Files::change_names(std::string directory, Disk::Changes changes) {
  const uint64_t operation = disk_.begin_names(directory, changes);
  co_await scheduler_.turn(Turn::name);
  disk_.end_names(operation, changes);
}

io::Task<std::unique_ptr<io::File>> Files::open(std::string path, io::OpenMode mode) {
  const Node* const node = find(path);
  const bool create = mode == io::OpenMode::create_new || mode == io::OpenMode::create_private ||
                      (mode == io::OpenMode::own_or_create && node == nullptr);
  if (mode != io::OpenMode::read_only) require_writable(create ? "create" : "open", path);
  if (create && node != nullptr) throw io::failure("create", path, EEXIST);
  if (node != nullptr && node->is_link()) throw io::failure("open", path, EINVAL);
  if (!create && node == nullptr) throw io::failure("open", path, ENOENT);
  FileId id = create ? disk_.new_file() : node->file;
  if (create) {
    const std::string directory = directory_of(path);
    if (!is_directory(directory)) throw io::failure("create", path, ENOENT);
    Disk::Changes changes;
    changes.emplace_back(path, Node{id, {}});
    co_await change_names(directory, std::move(changes));
  }
  co_return std::make_unique<SimFile>(*this, path, id);
}

io::Task<void> Files::rename_directory(std::string from, std::string to) {
  if (is_directory(to) || find(to) != nullptr) throw io::failure("rename", to, EEXIST);
  require_writable("rename", to);
  if (faults.strikes(Faults::Call::rename, from)) throw io::failure("rename", from, faults.error);
  const auto [operation, changes] = disk_.begin_rename_directory(from, to);
  co_await scheduler_.turn(Turn::name);
  disk_.end_rename_directory(operation, changes, from, to);
}

io::Task<void> Files::rename(std::string from, std::string to, bool replace) {
  if (is_directory(from)) {
    co_await rename_directory(std::move(from), std::move(to));
    co_return;
  }
  const Node* const node = find(from);
  if (node == nullptr) throw io::failure("rename", from, ENOENT);
  const Node* const taken = replace ? nullptr : find(to);
  // Without a rename that replaces nothing, an interrupted one has left both names.
  const bool interrupted = taken && !noreplace_works && taken->file == node->file;
  if (taken && !interrupted) throw io::failure("rename", to, EEXIST);
  require_writable("rename", to);
  if (faults.strikes(Faults::Call::rename, from)) throw io::failure("rename", from, faults.error);
  Disk::Changes changes;
  changes.emplace_back(to, *node);
  if (!replace && !noreplace_works) {
    PLANTED_BUG(noreplace_without_fallback, throw io::failure("rename", from, EINVAL))
    // As io::RingFileSystem does it: another name first, so that a crash may leave both.
    co_await change_names(directory_of(to), std::exchange(changes, {}));
    co_await sync_directory(directory_of(to));
  }
  changes.emplace_back(from, Node{});
  co_await change_names(directory_of(to), std::move(changes));
}

io::Task<void> Files::remove(std::string path) {
  if (find(path) == nullptr) throw io::failure("remove", path, ENOENT);
  require_writable("remove", path);
  if (faults.strikes(Faults::Call::remove, path)) throw io::failure("remove", path, faults.error);
  Disk::Changes changes;
  changes.emplace_back(path, Node{});
  co_await change_names(directory_of(path), std::move(changes));
}

io::Task<void> Files::remove_directory(std::string path) {
  co_await scheduler_.turn(Turn::name);
  require_writable("remove directory", path);
  for (const auto& [name, node] : disk_.names()) {
    if (directory_of(name) == path) throw io::failure("remove directory", path, ENOTEMPTY);
  }
  disk_.remove_directory(path);
}

io::Task<void> Files::make_directories(std::string path) {
  co_await scheduler_.turn(Turn::name);
  if (is_directory(path)) co_return;
  require_writable("make", path);
  for (std::string at = path; at != "/" && !is_directory(at); at = directory_of(at)) {
    disk_.make_directory(at);
  }
}

io::Task<void> Files::make_symlink(std::string target, std::string link) {
  require_writable("link", link);
  if (find(link) != nullptr) throw io::failure("link", link, EEXIST);
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
  if (!is_directory(path)) throw io::failure("list", path, ENOENT);
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
  if (is_directory(path)) {
    const uint64_t inode = std::hash<std::string>{}(path);  // no file's: those are small
    status = io::FileStatus{.kind = io::FileKind::directory, .device = 1, .inode = inode};
  } else if (const Node* const node = find(path)) {
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
