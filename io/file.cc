#include "io/file.h"

#include <cerrno>

#include "io/failure.h"
#include "io/planted_bug.h"

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

Task<void> replace_text(FileSystem& files, std::string path, std::string text, OpenMode mode) {
  const std::string temporary = path + ".new";
  const auto left_over = co_await files.status(temporary, false);
  if (left_over) co_await files.remove(temporary);
  {
    const auto file = co_await files.open(temporary, mode);
    co_await file->write(0, std::as_bytes(std::span(text.data(), text.size())));
    co_await file->sync();
  }
  co_await files.rename(temporary, path, true);
  std::string directory = parent_path(path);
  UNLESS_PLANTED(directory_not_synced) co_await files.sync_directory(std::move(directory));
}

}  // namespace io
