// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/fuzz_server.h"

#include <cstdio>
#include <cstdlib>

#include "io/big_endian.h"
#include "io/log.h"

namespace fuzz {
namespace {

[[maybe_unused]] const bool silent = [] {
  io::configure_log(io::LogFormat::text, io::LogLevel::error);
  return true;
}();

[[noreturn]] void give_up(const char* what) {
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

template <size_t kBytes>
std::span<const std::byte, kBytes> front(std::span<const std::byte>& bytes) {
  if (bytes.size() < kBytes) give_up("a reply's header is cut short");
  const auto taken = bytes.first<kBytes>();
  bytes = bytes.subspan(kBytes);
  return taken;
}

io::Task<void> serve(std::unique_ptr<io::Stream> stream, nbd::Negotiated negotiated) {
  nbd::Session session(std::move(stream), std::move(negotiated), {});
  co_await session.serve();
}

}  // namespace

void check_replies(const Server& server, bool extended) {
  std::span<const std::byte> sent = server.sent;
  while (!sent.empty()) {
    nbd::ChunkHeader header;
    if (extended) {
      header = nbd::ChunkHeader::decode_extended(front<nbd::ChunkHeader::kExtendedWireBytes>(sent));
    } else if (sent.size() >= 4 && io::load_be<uint32_t>(sent.data()) == nbd::kSimpleReplyMagic) {
      front<nbd::SimpleReply::kWireBytes>(sent);
      continue;
    } else {
      header = nbd::ChunkHeader::decode(front<nbd::ChunkHeader::kWireBytes>(sent));
    }
    if (header.length > sent.size() && server.aborted) return;
    if (header.length > sent.size()) give_up("a chunk is longer than what was sent");
    switch (header.type) {
      case nbd::ChunkType::none:
        if (header.length != 0) give_up("a chunk of no kind has a payload");
        break;
      case nbd::ChunkType::offset_data:
      case nbd::ChunkType::offset_hole:
      case nbd::ChunkType::error:
      case nbd::ChunkType::error_offset:
        if (header.length < 6) give_up("a chunk is too short for its kind");
        break;
      case nbd::ChunkType::block_status:
      case nbd::ChunkType::block_status_ext:
        if ((header.type == nbd::ChunkType::block_status_ext) != extended) {
          give_up("a block status of the wrong form");
        }
        break;
      default:
        give_up("a chunk of unknown kind");
    }
    sent = sent.subspan(static_cast<size_t>(header.length));
  }
}

void serve_session(Server& server, nbd::Negotiated negotiated, std::span<const std::byte> script,
                   size_t piece_bytes) {
  const nbd::Negotiation rules = negotiated.rules;
  server.sent.clear();
  server.loop.run(serve(std::make_unique<support::ScriptedStream>(server.loop, script, piece_bytes,
                                                                  server.sent, &server.aborted),
                        std::move(negotiated)));
  if (rules.structured_replies) check_replies(server, rules.extended_headers);
}

}  // namespace fuzz
