// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/compression.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace qcow {

namespace {

bool inflate_cluster(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  z_stream state{};
  if (inflateInit2(&state, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&state, inflateEnd);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stream.data()));
  state.avail_in = static_cast<uInt>(stream.size());
  state.next_out = reinterpret_cast<Bytef*>(cluster.data());
  state.avail_out = static_cast<uInt>(cluster.size());
  const int result = inflate(&state, Z_FINISH);
  // Z_BUF_ERROR: the cluster is full and the stream's end marker was not looked at; as in qemu.
  return (result == Z_STREAM_END || result == Z_BUF_ERROR) && state.avail_out == 0;
}

bool decompress_zstd(std::span<const std::byte> stream, std::span<std::byte> cluster) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                   ZSTD_freeDCtx);
  if (!context) throw std::bad_alloc();
  ZSTD_inBuffer in{stream.data(), stream.size(), 0};
  ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
  // A cluster may be several frames; each call makes progress or the stream is damaged.
  while (out.pos < out.size) {
    const size_t in_before = in.pos, out_before = out.pos;
    const size_t left_in_frame = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left_in_frame)) return false;
    if (in.pos == in_before && out.pos == out_before) return false;
    if (out.pos == out.size) return left_in_frame == 0;
  }
  return true;
}

}  // namespace

bool decompress(CompressionType type, std::span<const std::byte> stream,
                std::span<std::byte> cluster) {
  return type == CompressionType::zstd ? decompress_zstd(stream, cluster)
                                       : inflate_cluster(stream, cluster);
}

}  // namespace qcow
