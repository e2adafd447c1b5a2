// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/compression.h"

#include <zlib.h>
#include <zstd.h>

#include "tests/qcow/image_files.h"

namespace qcow {
namespace {

using qcow_test::Bytes;

Bytes compressible(size_t count) {
  std::mt19937_64 random(3);
  Bytes bytes(count);
  for (size_t at = 0; at < count; ++at) bytes[at] = std::byte(random() % 5 * (at % 7));
  return bytes;
}

Bytes deflated(const Bytes& content, int window_bits) {
  z_stream state{};
  EXPECT_EQ(deflateInit2(&state, 6, Z_DEFLATED, -window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes stream(content.size() + 1024);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(content.data()));
  state.avail_in = static_cast<uInt>(content.size());
  state.next_out = reinterpret_cast<Bytef*>(stream.data());
  state.avail_out = static_cast<uInt>(stream.size());
  EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
  stream.resize(state.total_out);
  deflateEnd(&state);
  return stream;
}

Bytes zstd_compressed(const Bytes& content) {
  Bytes stream(ZSTD_compressBound(content.size()));
  stream.resize(ZSTD_compress(stream.data(), stream.size(), content.data(), content.size(), 3));
  return stream;
}

void expect_reads(CompressionType type, Bytes stream, const Bytes& content) {
  for (const size_t behind : {0, 1, 511}) {  // what follows the stream in its last sector
    Bytes longer = stream;
    longer.resize(stream.size() + behind, std::byte{0xa5});
    Bytes cluster(content.size());
    EXPECT_TRUE(decompress(type, longer, cluster)) << behind;
    EXPECT_EQ(cluster, content);
  }
}

void expect_refuses(CompressionType type, const Bytes& stream, size_t cluster_bytes) {
  Bytes cluster(cluster_bytes);
  EXPECT_FALSE(decompress(type, stream, cluster)) << stream.size();
}

TEST(Compression, InflatesEveryWindowThatWritersUse) {
  const Bytes content = compressible(65536);
  for (const int window_bits : {12, 13, 14, 15}) {
    expect_reads(CompressionType::deflate, deflated(content, window_bits), content);
  }
}

TEST(Compression, ReadsZstdFrames) {
  const Bytes content = compressible(65536);
  expect_reads(CompressionType::zstd, zstd_compressed(content), content);
}

TEST(Compression, RefusesAStreamThatEndsEarly) {
  const Bytes content = compressible(65536);
  for (const Bytes& whole : {deflated(content, 12), zstd_compressed(content)}) {
    const auto type =
        whole == deflated(content, 12) ? CompressionType::deflate : CompressionType::zstd;
    for (size_t bytes = 0; bytes < whole.size(); bytes += 501) {
      expect_refuses(type, Bytes(whole.begin(), whole.begin() + static_cast<long>(bytes)), 65536);
    }
  }
}

TEST(Compression, RefusesAStreamOfAnotherSize) {
  const Bytes small = compressible(4096);
  expect_refuses(CompressionType::deflate, deflated(small, 12), 65536);
  expect_refuses(CompressionType::zstd, zstd_compressed(small), 65536);
  expect_refuses(CompressionType::zstd, zstd_compressed(compressible(65536)), 4096);
}

TEST(Compression, RefusesNoise) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 50; ++i) {
    const Bytes noise = qcow_test::random_bytes(random, 4096);
    expect_refuses(CompressionType::deflate, noise, 65536);
    expect_refuses(CompressionType::zstd, noise, 65536);
  }
}

}  // namespace
}  // namespace qcow
