// SPDX-License-Identifier: Apache-2.0
// varve's client against a server that says anything. The first byte of the input: bit 0 asks for
// structured replies, bit 1 for extended headers, the rest is the size of the pieces.
#include "nbd/client.h"
#include "tests/fuzz/fuzz_server.h"

namespace {

io::Task<void> talk(io::Runtime runtime, std::unique_ptr<io::Stream> stream,
                    nbd::ClientOptions options) {
  std::unique_ptr<nbd::Client> client;
  try {
    auto opening = nbd::Client::open(runtime, std::move(stream), std::move(options));
    client = co_await std::move(opening);
    nbd::Bytes into(600);
    co_await client->read(4096, into);
    co_await client->extents(4096, 600, 3);
    co_await client->write_from(0, into);
    co_await client->write_zeroes(0, 512, io::ZeroMode::fast_or_fail);
    co_await client->flush();
  } catch (const std::exception&) {
  }
  if (client) co_await client->close();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const unsigned form = data[0];
  const size_t piece_bytes = form >> 2 == 0 ? size : form >> 2;
  const auto script = std::as_bytes(std::span(data, size)).subspan(1);
  support::MemoryLoop loop;
  io::BufferPool buffers(loop, 64 << 20);
  std::vector<std::byte> sent;
  static io::RingRuntime outside;  // for its files and random numbers, which nobody uses
  const io::Runtime there = outside.runtime();
  nbd::ClientOptions options;
  options.export_name = "disk";
  options.structured_replies = (form & 1) != 0;
  options.extended_headers = (form & 2) != 0;
  loop.run(talk({loop, loop, there.files, buffers, there.random},
                std::make_unique<support::ScriptedStream>(loop, script, piece_bytes, sent),
                std::move(options)));
  return 0;
}
