// SPDX-License-Identifier: Apache-2.0
#include "io/file.h"

#include <fmt/format.h>

#include <cerrno>
#include <functional>

#include "io/failure.h"
#include "io/outcome.h"
#include "io/planted_bug.h"
#include "io/runtime.h"

namespace io {

std::string parent_path(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string(slash == 0 ? "/" : path.substr(0, slash));
}

Task<std::string> read_text(FileSystem& files, std::string path, size_t bytes_max) {
  const auto file = co_await files.open(path, OpenMode::read_only);
  const uint64_t size = co_await file->size();
  if (size > bytes_max) throw failure("read", path, 0, size, EFBIG);
  std::string text(size, '\0');
  co_await file->read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  co_return text;
}

Task<std::string> follow_link(FileSystem& files, std::string path) {
  const auto found = co_await files.status(path, false);
  if (found && found->kind == FileKind::symlink) path = co_await files.resolve(path);
  co_return path;
}

std::string temporary_path(Random& random, std::string_view path) {
  return fmt::format("{}.{:016x}{}", path, random.next(), kTemporarySuffix);
}

namespace {

Task<void> write_new(FileSystem& files, std::string path, std::string_view text, OpenMode mode) {
  const auto file = co_await files.open(std::move(path), mode);
  co_await file->write(0, std::as_bytes(std::span(text.data(), text.size())));
  co_await file->sync();
}

/// What cannot be removed now is removed by the sweep of the next start.
Task<void> remove_if_possible(FileSystem& files, std::string path) {
  try {
    co_await files.remove(std::move(path));
  } catch (const std::system_error&) {
  }
}

}  // namespace

Task<void> remove_temporaries(FileSystem& files, std::string path) {
  const std::string directory = parent_path(path);
  const std::string start = path.substr(path.rfind('/') + 1) + ".";
  const std::vector<DirectoryEntry> entries = co_await files.list(directory);
  for (const DirectoryEntry& entry : entries) {
    if (!entry.name.starts_with(start) || !entry.name.ends_with(kTemporarySuffix)) continue;
    co_await files.remove(directory + "/" + entry.name);
  }
}

Task<void> replace_text(Runtime runtime, std::string path, std::string text, OpenMode mode) {
  FileSystem& files = runtime.files;
  const std::string temporary = temporary_path(runtime.random, path);
  const auto write_and_rename = [&]() -> Task<void> {
    co_await write_new(files, temporary, text, mode);
    co_await files.rename(temporary, path, true);
  };
  Outcome<> replaced = co_await attempt(std::cref(write_and_rename));
  if (replaced.failed()) co_await remove_if_possible(files, temporary);
  replaced.take();
  std::string directory = parent_path(path);
  UNLESS_PLANTED(directory_not_synced) co_await files.sync_directory(std::move(directory));
}

}  // namespace io
