// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "io/file.h"

namespace crash {

std::string directory_of(const std::string& path) { return io::parent_path(path); }

const Bytes* State::find(const std::string& path) const {
  const auto node = names.find(path);
  if (node == names.end() || node->second.is_link()) return nullptr;
  return files.at(node->second.file).get();
}

void State::put(const std::string& path, Bytes bytes) {
  const auto node = names.find(path);
  const FileId file = node == names.end() ? ++files_ever : node->second.file;
  names[path] = Node{file, {}};
  files[file] = std::make_shared<const Bytes>(std::move(bytes));
}

Disk::Disk(State start, bool record)
    : start_(std::move(start)),
      record_(record),
      files_ever_(start_.files_ever),
      names_(start_.names),
      directories_(start_.directories) {
  for (const auto& [file, bytes] : start_.files) files_[file] = Inode{bytes, {}, false};
}

void Disk::note(Event event) {
  if (record_) log_.push_back(std::move(event));
}

const Bytes& Disk::content(FileId file) const {
  const Inode& inode = files_.at(file);
  return inode.changed ? inode.own : *inode.shared;
}

Bytes& Disk::writable(FileId file) {
  Inode& inode = files_.at(file);
  if (!inode.changed) {
    inode.own = *inode.shared;
    inode.changed = true;
  }
  return inode.own;
}

/// O_DIRECT beside the page cache, or twice in flight: which one wins is anybody's guess.
void Disk::refuse_overlap(FileId file, uint64_t offset, uint64_t end) const {
  for (const auto& [operation, other] : writes_) {
    if (other.file == file && offset < other.end && other.offset < end) {
      throw std::logic_error(fmt::format("two writes under way share a sector: {}-{} and {}-{}",
                                         offset, end, other.offset, other.end));
    }
  }
}

uint64_t Disk::begin_write(FileId file, uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t operation = ++operations_;
  if (!record_) return operation;
  const uint64_t from = sector_down(offset), to = sector_up(offset + bytes.size());
  refuse_overlap(file, from, to);
  writes_[operation] = {file, from, to};
  note_write(operation, file, offset, bytes);
  return operation;
}

/// Sectors reach the disk whole: with what the file held around the bytes.
void Disk::note_write(uint64_t operation, FileId file, uint64_t offset,
                      std::span<const std::byte> bytes) {
  const uint64_t end = offset + bytes.size();
  const uint64_t from = sector_down(offset);
  Bytes sectors(sector_up(end) - from);
  read(file, from, sectors);
  std::copy(bytes.begin(), bytes.end(), sectors.begin() + static_cast<ptrdiff_t>(offset - from));
  note({.kind = Event::Kind::write,
        .operation = operation,
        .file = file,
        .offset = from,
        .end = end,
        .bytes = std::move(sectors)});
}

void Disk::end_write(uint64_t operation, FileId file, uint64_t offset,
                     std::span<const std::byte> bytes) {
  writes_.erase(operation);
  Bytes& content = writable(file);
  if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content.begin() + static_cast<ptrdiff_t>(offset));
  done(operation);
}

void Disk::end_write_late(uint64_t operation, FileId file, uint64_t offset,
                          std::span<const std::byte> bytes) {
  failed(operation);
  const uint64_t again = ++operations_;
  if (record_) note_write(again, file, offset, bytes);
  end_write(again, file, offset, bytes);
}

uint64_t Disk::begin_resize(FileId file, uint64_t size, bool grow) {
  const uint64_t operation = ++operations_;
  const auto kind = grow ? Event::Kind::grow : Event::Kind::truncate;
  note({.kind = kind, .operation = operation, .file = file, .end = size});
  return operation;
}

void Disk::end_resize(uint64_t operation, FileId file, uint64_t size) {
  writable(file).resize(size);
  done(operation);
}

uint64_t Disk::begin_sync(FileId file) {
  const uint64_t operation = ++operations_;
  note({.kind = Event::Kind::sync, .operation = operation, .file = file});
  return operation;
}

void Disk::failed(uint64_t operation) {
  writes_.erase(operation);
  note({.kind = Event::Kind::failed, .operation = operation});
}

void Disk::sync_failed(uint64_t operation) {
  note({.kind = Event::Kind::dropped_sync, .operation = operation});
}

void Disk::read(FileId file, uint64_t offset, std::span<std::byte> into) const {
  const Bytes& from = content(file);
  const uint64_t available = offset < from.size() ? from.size() - offset : 0;
  const uint64_t length = std::min<uint64_t>(available, into.size());
  if (length > 0) std::copy_n(from.begin() + static_cast<ptrdiff_t>(offset), length, into.begin());
  std::fill(into.begin() + static_cast<ptrdiff_t>(length), into.end(), std::byte{0});
}

const Node* Disk::find(const std::string& path) const {
  const auto found = names_.find(path);
  return found == names_.end() ? nullptr : &found->second;
}

FileId Disk::new_file() {
  const FileId file = ++files_ever_;
  files_[file] = Inode{nullptr, {}, true};
  return file;
}

uint64_t Disk::begin_names(const std::string& directory, const Changes& changes) {
  const uint64_t operation = ++operations_;
  note({.kind = Event::Kind::names,
        .operation = operation,
        .directory = directory,
        .changes = changes});
  return operation;
}

void Disk::end_names(uint64_t operation, const Changes& changes) {
  for (const auto& [path, node] : changes) {
    if (node.gone()) {
      names_.erase(path);
    } else {
      names_[path] = node;
    }
  }
  done(operation);
}

std::pair<uint64_t, Disk::Changes> Disk::begin_rename_directory(const std::string& from,
                                                                const std::string& to) {
  Changes changes;
  for (const auto& [path, node] : names_) {
    if (directory_of(path) != from) continue;
    changes.emplace_back(to + path.substr(from.size()), node);
    changes.emplace_back(path, Node{});
  }
  const uint64_t operation = ++operations_;
  note({.kind = Event::Kind::names,
        .operation = operation,
        .directory = directory_of(to),
        .changes = changes,
        .renamed_from = from,
        .renamed_to = to});
  return {operation, std::move(changes)};
}

void Disk::end_rename_directory(uint64_t operation, const Changes& changes, const std::string& from,
                                const std::string& to) {
  directories_.erase(from);
  directories_.insert(to);
  end_names(operation, changes);
}

uint64_t Disk::begin_sync_names(const std::string& directory) {
  const uint64_t operation = ++operations_;
  note({.kind = Event::Kind::sync_names, .operation = operation, .directory = directory});
  return operation;
}

void Disk::make_directory(const std::string& path) {
  if (directories_.insert(path).second) {
    note({.kind = Event::Kind::directory, .directory = path});
  }
}

State Disk::live() const {
  State state;
  state.names = names_;
  state.directories = directories_;
  state.files_ever = files_ever_;
  for (const auto& [file, inode] : files_) {
    state.files[file] = inode.changed ? std::make_shared<const Bytes>(inode.own) : inode.shared;
  }
  return state;
}

}  // namespace crash
