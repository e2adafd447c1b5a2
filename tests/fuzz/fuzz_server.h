// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/ring_thread.h"
#include "nbd/handshake.h"
#include "nbd/session.h"
#include "tests/support/memory_device.h"
#include "tests/support/memory_loop.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace fuzz {

/// A server in memory with two exports of one small disk, for one input.
class Server {
 public:
  static constexpr uint64_t kDiskBytes = (1 << 20) + 100;
  static constexpr uint32_t kClusterBytes = 4096;

  Server() {
    disk.preset(kClusterBytes, 2 * kClusterBytes, 0x55);
    exports.add(writable);
    exports.add(read_only);
  }
  ~Server() {
    loop.run(writable->join());
    loop.run(read_only->join());
  }

  nbd::Visibility visible() const { return nbd::Visibility::all(exports, "disk"); }

  support::MemoryLoop loop;
  io::BufferPool buffers{loop, 256 << 20};
  support::MemoryDevice disk{kDiskBytes, kClusterBytes};
  nbd::Admission admission;
  nbd::ExportTable exports;
  std::shared_ptr<nbd::Export> writable = make("disk", false);
  std::shared_ptr<nbd::Export> read_only = make("point", true);
  std::vector<std::byte> sent;  // by the server
  bool aborted = false;         // it gave the connection up, perhaps inside a long reply

 private:
  std::shared_ptr<nbd::Export> make(const char* name, bool read_only) {
    const std::vector<nbd::Ancestor> ancestors = {{"b1", kDiskBytes}, {"b0", 5000}};
    nbd::ExportSpec spec{.name = name, .description = "fuzzed"};
    spec.kind = read_only ? nbd::ExportKind::point : nbd::ExportKind::ingest;
    spec.read_only = read_only;
    spec.more_contexts = nbd::change_contexts(ancestors);
    static io::RingRuntime outside;  // for its files and random numbers, which nobody uses
    const io::Runtime there = outside.runtime();
    return nbd::Export::make(spec, disk, {loop, loop, there.files, buffers, there.random});
  }
};

/// Walks over the replies in `sent`: every one has its magic, a known type, and a length that the
/// bytes bear out; the last one may be cut when the connection was given up. Aborts the process
/// otherwise. Only for connections with structured replies.
void check_replies(const Server& server, bool extended);

/// Lets a session serve `script`.
void serve_session(Server& server, nbd::Negotiated negotiated, std::span<const std::byte> script,
                   size_t piece_bytes);

}  // namespace fuzz
