// SPDX-License-Identifier: Apache-2.0
// A whole connection: everything that a client says from its first byte on. The first byte of the
// input is the size of the pieces in which it arrives; 0: all at once.
#include "tests/fuzz/fuzz_server.h"

namespace {

io::Task<void> serve(fuzz::Server& server, std::unique_ptr<io::Stream> stream) {
  nbd::Handshake handshake(server.loop, server.loop, *stream, server.visible(), server.admission);
  std::optional<nbd::Negotiated> negotiated;
  try {
    negotiated = co_await handshake.run();
  } catch (const nbd::ProtocolError&) {
  }
  if (!negotiated) co_return;
  const nbd::Bytes ahead(handshake.read_ahead().begin(), handshake.read_ahead().end());
  const nbd::Negotiation rules = negotiated->rules;
  server.sent.clear();
  {
    nbd::Session session(std::move(stream), std::move(*negotiated), ahead);
    co_await session.serve();
  }
  if (rules.structured_replies) fuzz::check_replies(server, rules.extended_headers);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece_bytes = data[0] == 0 ? size : data[0];
  const auto script = std::as_bytes(std::span(data, size)).subspan(1);
  fuzz::Server server;
  server.loop.run(
      serve(server, std::make_unique<support::ScriptedStream>(server.loop, script, piece_bytes,
                                                              server.sent, &server.aborted)));
  return 0;
}
