// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "qcow/chain/chain.h"
#include "qcow/format/header.h"
#include "tests/support/command.h"
#include "tests/support/ring_fixture.h"

/// What the tests of image files share: a directory of images, qemu's tools over them, and ways to
/// damage a file at a byte.
namespace qcow_test {

using Bytes = std::vector<std::byte>;

Bytes read_file(const std::string& path);
void write_file(const std::string& path, std::span<const std::byte> content);
Bytes random_bytes(std::mt19937_64& random, size_t count);
uint64_t file_bytes(const std::string& path);
uint64_t stored_bytes(const std::string& path);  ///< without holes

/// Overwrites bytes inside a file.
void patch(const std::string& path, uint64_t offset, std::span<const std::byte> with);
template <std::unsigned_integral T>
void patch_be(const std::string& path, uint64_t offset, T value) {
  std::byte bytes[sizeof value];
  io::store_be(bytes, value);
  patch(path, offset, bytes);
}
template <std::unsigned_integral T>
T peek_be(const std::string& path, uint64_t offset) {
  const Bytes content = read_file(path);
  return io::load_be<T>(&content.at(offset));
}
/// Host offsets of the first L2 table of an image, and of the cluster that it gives a guest
/// cluster.
uint64_t first_table_of(const std::string& path);
uint64_t host_of(const std::string& path, uint64_t cluster);

/// The message of the FormatError that `action` throws, or a note that it threw none.
template <class Action>
std::string refusal_of(Action&& action) {
  try {
    action();
  } catch (const qcow::FormatError& error) {
    return error.what();
  }
  return "(not refused)";
}

class ImageFiles : public support::RingTest {
 protected:
  std::string file(const std::string& name) const { return directory_.file(name); }
  const std::string& directory() const { return directory_.path(); }

  /// Runs "qemu-img …" in the directory of images; a failure fails the test. Returns its output.
  std::string qemu_img(const std::string& words);
  /// Runs qemu-io's commands on one image.
  std::string qemu_io(const std::string& name, const std::vector<std::string>& commands);

  /// The disk that qemu sees in an image.
  Bytes qemu_content(const std::string& name);
  /// The disk that varve sees, read in pieces of `piece_bytes`.
  Bytes varve_content(const std::string& name, uint64_t piece_bytes = 1 << 20);

  std::unique_ptr<qcow::Chain> open_chain(const std::string& name,
                                          qcow::ChainOptions options = qcow::ChainOptions());
  qcow::Header header(const std::string& name);

  /// Writes random data, zeroes and discards at random places with qemu-io.
  void scribble(const std::string& name, uint64_t size, int count);

  /// Makes c0.qcow2 … c<depth-1>.qcow2, each on the one before; no fsync, so it is quick.
  void make_long_chain(int depth, uint64_t size);

  std::mt19937_64 random_{20251124};

 private:
  support::TempDir directory_;
};

}  // namespace qcow_test
