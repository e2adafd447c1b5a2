// SPDX-License-Identifier: Apache-2.0
/// Reads ranges of a disk through libqcow, in a process of its own: the packaged library can loop,
/// crash or return wrong data with success (tests/qcow/libqcow_traps_test.cc).
///
///   libqcow_reader PIECE_BYTES OUTPUT BASE … TOP < ranges
///
/// Each line of the input is "offset length". What is read, in pieces of at most PIECE_BYTES, lands
/// at the same offset of OUTPUT. Exit code 0; 3 when an image cannot be opened, 4 when a read
/// fails, each with libqcow's own words. SIGALRM aborts the library, for callers that prefer an
/// error to a kill.

#include <libqcow.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

libqcow_file_t* reading = nullptr;

void abort_reading(int) {
  if (reading != nullptr) libqcow_file_signal_abort(reading, nullptr);
}

[[noreturn]] void fail(int exit_code, const char* what, libqcow_error_t* error) {
  std::fprintf(stderr, "libqcow: %s\n", what);
  if (error != nullptr) libqcow_error_backtrace_fprint(error, stderr);
  std::exit(exit_code);
}

libqcow_file_t* open_image(const char* path, libqcow_file_t* parent) {
  libqcow_error_t* error = nullptr;
  libqcow_file_t* image = nullptr;
  if (libqcow_file_initialize(&image, &error) != 1 ||
      libqcow_file_open(image, path, LIBQCOW_OPEN_READ, &error) != 1) {
    fail(3, path, error);
  }
  if (parent != nullptr && libqcow_file_set_parent_file(image, parent, &error) != 1) {
    fail(3, "set parent", error);
  }
  return image;
}

void read_range(libqcow_file_t* image, uint64_t offset, uint64_t length, uint64_t piece_bytes,
                std::FILE* output) {
  std::vector<unsigned char> piece(piece_bytes);
  while (length > 0) {
    const size_t bytes = std::min(length, piece_bytes);
    libqcow_error_t* error = nullptr;
    const ssize_t got = libqcow_file_read_buffer_at_offset(image, piece.data(), bytes,
                                                           static_cast<off64_t>(offset), &error);
    if (got != static_cast<ssize_t>(bytes)) fail(4, "read", error);
    if (std::fseek(output, static_cast<long>(offset), SEEK_SET) != 0 ||
        std::fwrite(piece.data(), 1, bytes, output) != bytes) {
      fail(1, "cannot write the output", nullptr);
    }
    offset += bytes;
    length -= bytes;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "libqcow_reader PIECE_BYTES OUTPUT BASE ... TOP < ranges\n");
    return 2;
  }
  const uint64_t piece_bytes = std::strtoull(argv[1], nullptr, 10);
  std::FILE* const output = std::fopen(argv[2], "wb");
  if (piece_bytes == 0 || output == nullptr) return 2;

  std::vector<libqcow_file_t*> images;
  for (int i = 3; i < argc; ++i) {
    images.push_back(open_image(argv[i], images.empty() ? nullptr : images.back()));
  }
  reading = images.back();
  std::signal(SIGALRM, abort_reading);

  unsigned long long offset = 0, length = 0;
  while (std::scanf("%llu %llu", &offset, &length) == 2) {
    read_range(images.back(), offset, length, piece_bytes, output);
  }
  const bool written = std::fclose(output) == 0;
  for (auto image = images.rbegin(); image != images.rend(); ++image) {
    libqcow_file_free(&*image, nullptr);
  }
  return written ? 0 : 1;
}
