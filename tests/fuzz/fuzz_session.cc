// SPDX-License-Identifier: Apache-2.0
// The transmission phase. The first byte of the input says what was negotiated: bits 0-1 simple,
// structured, extended, extended; bit 2 the read-only export; bits 3-5 the number of contexts; bits
// 6-7 pieces of 1, 7 or 64 bytes, or all at once.
#include <array>

#include "tests/fuzz/fuzz_server.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const unsigned form = data[0];
  const bool structured = (form & 3) != 0, extended = (form & 2) != 0;
  const std::array<size_t, 4> pieces = {size, 64, 7, 1};
  fuzz::Server server;
  nbd::Export& exported = (form & 4) != 0 ? *server.read_only : *server.writable;
  auto place = exported.connect();
  nbd::Negotiated negotiated{nbd::AdmissionSlot(server.admission),
                             std::move(std::get<nbd::ConnectionPlace>(place)),
                             nbd::Negotiation{structured, extended, false},
                             {}};
  const size_t contexts = structured ? (form >> 3) & 7 : 0;
  for (size_t index = 0; index < std::min(contexts, exported.contexts().size()); ++index) {
    negotiated.contexts.push_back({static_cast<uint32_t>(index) + 1, index});
  }
  negotiated.rules.has_contexts = !negotiated.contexts.empty();
  const auto script = std::as_bytes(std::span(data, size)).subspan(1);
  fuzz::serve_session(server, std::move(negotiated), script, pieces[form >> 6]);
  return 0;
}
