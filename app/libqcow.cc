// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <libqcow.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iostream>
#include <memory>
#include <span>
#include <stdexcept>

#include "app/commands.h"
#include "app/read_image.h"
#include "engine/care/reader_lines.h"
#include "io/failure.h"
#include "io/owned_fd.h"

/// The only file that knows libqcow. It reads as docs/qcow2-rules.md, LQ9 to LQ14, allows: no other
/// image, a cluster at a time, only what varve asks for.
namespace app {
namespace {

using engine::ReaderLine;

/// Bytes after which what was read leaves the page cache.
constexpr uint64_t kCachedMax = 64 << 20;

std::runtime_error failure_of(libqcow_error_t* error) {
  char text[512] = "no error text";
  if (error != nullptr) libqcow_error_backtrace_sprint(error, text, sizeof text);
  libqcow_error_free(&error);
  return std::runtime_error(text);
}

struct LibqcowFree {
  void operator()(libqcow_file_t* file) const { libqcow_file_free(&file, nullptr); }
};
using LibqcowFile = std::unique_ptr<libqcow_file_t, LibqcowFree>;

LibqcowFile open_image(const std::string& path) {
  libqcow_error_t* error = nullptr;
  libqcow_file_t* file = nullptr;
  if (libqcow_file_initialize(&file, &error) != 1) throw failure_of(error);
  LibqcowFile image(file);
  if (libqcow_file_open(file, path.c_str(), LIBQCOW_OPEN_READ, &error) != 1) {
    throw failure_of(error);
  }
  return image;
}

class LibqcowImage {
 public:
  explicit LibqcowImage(const std::string& path)
      : own_fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!own_fd_.valid()) throw io::failure("open", path, errno);
    forget_cached();
    image_ = open_image(path);
    libqcow_error_t* error = nullptr;
    if (libqcow_file_get_media_size(image_.get(), &size_, &error) != 1) throw failure_of(error);
    size_t name_bytes = 0;
    const int named =
        libqcow_file_get_utf8_backing_filename_size(image_.get(), &name_bytes, &error);
    if (named < 0) throw failure_of(error);
    if (named == 0) return;
    // An overlay is not read without a parent. It gets itself: the same size and clusters, which
    // keeps LQ2 and LQ3 away, and what it does not store is an error, because the second one has no
    // parent.
    parent_ = open_image(path);
    if (libqcow_file_set_parent_file(image_.get(), parent_.get(), &error) != 1) {
      throw failure_of(error);
    }
  }

  uint64_t size() const { return size_; }

  /// Fills the cluster; past the end of the disk with zeroes.
  void read(uint64_t offset, std::span<std::byte> cluster) {
    if (offset >= size_) throw std::runtime_error("lies beyond the end of the disk");
    const size_t bytes = std::min<uint64_t>(cluster.size(), size_ - offset);
    libqcow_error_t* error = nullptr;
    const ssize_t got = libqcow_file_read_buffer_at_offset(image_.get(), cluster.data(), bytes,
                                                           static_cast<off64_t>(offset), &error);
    if (got != static_cast<ssize_t>(bytes)) throw failure_of(error);
    std::ranges::fill(cluster.subspan(bytes), std::byte{0});
    cached_bytes_ += bytes;
    if (cached_bytes_ >= kCachedMax) forget_cached();
  }

 private:
  /// So that the disk is read, and not what is remembered of it.
  void forget_cached() {
    ::posix_fadvise(own_fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
    cached_bytes_ = 0;
  }

  const io::OwnedFd own_fd_;
  LibqcowFile parent_, image_;  // the parent outlives the image
  size64_t size_ = 0;
  uint64_t cached_bytes_ = 0;
};

ReaderLine read_cluster(LibqcowImage& image, uint64_t offset, std::span<std::byte> cluster) {
  try {
    image.read(offset, cluster);
    return {.kind = ReaderLine::Kind::sum, .offset = offset, .sum = qcow::sum_of(cluster)};
  } catch (const std::runtime_error& failure) {
    return {.kind = ReaderLine::Kind::unread, .offset = offset, .text = failure.what()};
  }
}

void answer(const std::string& text) {
  std::cout << text << std::flush;
  if (!std::cout) throw io::failure("write", "standard output", EPIPE);
}

void serve(const ReadImageOptions& options) {
  LibqcowImage image(options.image);
  answer(encode(ReaderLine{.kind = ReaderLine::Kind::ready, .offset = image.size()}));
  std::vector<std::byte> cluster(options.cluster_bytes);
  std::string line, text;
  while (std::getline(std::cin, line)) {
    const auto request = engine::decode_reader_request(line);
    if (!request) throw std::runtime_error("was asked for nothing that can be read");
    text.clear();
    for (uint64_t i = 0; i < request->count; ++i) {
      text += encode(read_cluster(image, request->offset + i * cluster.size(), cluster));
    }
    answer(text);
  }
}

}  // namespace

bool has_libqcow() { return true; }

int run_read_image(const ReadImageOptions& options) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != options.parent) return 1;  // it has ended meanwhile
  try {
    serve(options);
    return 0;
  } catch (const std::exception& failure) {
    std::cout << encode(ReaderLine{.kind = ReaderLine::Kind::failed, .text = failure.what()})
              << std::flush;
    return 1;
  }
}

}  // namespace app
