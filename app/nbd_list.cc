// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "app/commands.h"
#include "io/address.h"
#include "io/ring_thread.h"
#include "io/socket.h"
#include "nbd/client_handshake.h"

namespace app {
namespace {

/// How long a server may take for all of its answers.
constexpr io::Duration kListPatience = std::chrono::seconds(30);

struct NamedFlag {
  uint16_t flag;
  const char* name;
};
constexpr std::array<NamedFlag, 9> kFlags = {{{nbd::kReadOnly, "readonly"},
                                              {nbd::kSendFlush, "flush"},
                                              {nbd::kSendFua, "fua"},
                                              {nbd::kSendTrim, "trim"},
                                              {nbd::kSendWriteZeroes, "zeroes"},
                                              {nbd::kSendDf, "df"},
                                              {nbd::kCanMultiConn, "multi"},
                                              {nbd::kSendFastZero, "fast-zero"},
                                              {nbd::kBlockStatusPayload, "block-status-payload"}}};

/// One export as qemu-nbd --list shows it.
std::string text_of(const nbd::ExportInfo& info, const std::string& description,
                    const std::vector<nbd::OfferedContext>& contexts) {
  std::string text = fmt::format(" export: '{}'\n", info.name);
  if (!description.empty()) text += fmt::format("  description: {}\n", description);
  text += fmt::format("  size:  {}\n  flags: 0x{:x} (", info.size, info.flags);
  for (const NamedFlag& flag : kFlags) {
    if (info.has(flag.flag)) text += fmt::format(" {}", flag.name);
  }
  text += fmt::format(" )\n  min block: {}\n  opt block: {}\n  max block: {}\n",
                      info.block_bytes_min, info.block_bytes_preferred, info.payload_bytes_max);
  if (!contexts.empty()) {
    text += fmt::format("  available meta contexts: {}\n", contexts.size());
    for (const nbd::OfferedContext& context : contexts)
      text += fmt::format("   {}\n", context.name);
  }
  return text;
}

io::Task<std::string> ask(io::Ring& ring, NbdOptions options) {
  std::unique_ptr<io::Socket> socket;
  if (options.socket.empty()) {
    socket = co_await io::connect_tcp(ring, options.bind, options.port);
  } else {
    socket = co_await io::connect_unix(ring, options.socket);
  }
  const auto alarm = ring.call_at(ring.now() + kListPatience, [&socket] { socket->abort(); });
  nbd::Inbox inbox(*socket);
  nbd::ClientHandshake handshake(*socket, inbox);
  co_await handshake.greet();
  const bool structured = co_await handshake.ask_for(nbd::Option::structured_reply);
  const std::vector<nbd::ListedExport> exports = co_await handshake.list();
  std::string text = fmt::format("exports available: {}\n", exports.size());
  for (const nbd::ListedExport& listed : exports) {
    io::Task<nbd::ExportInfo> informing = handshake.info(nbd::Option::info, listed.name);
    const nbd::ExportInfo info = co_await std::move(informing);
    std::vector<nbd::OfferedContext> contexts;
    if (structured) {
      auto asking = handshake.contexts(nbd::Option::list_meta_context, listed.name, {});
      contexts = co_await std::move(asking);
    }
    text += text_of(info, listed.description, contexts);
  }
  co_await handshake.abort();
  co_return text;
}

}  // namespace

int list_exports(const NbdOptions& options) {
  io::RingRuntime here;
  std::string text;
  try {
    text = here.ring().run(ask(here.ring(), options));
  } catch (const nbd::ProtocolError& refusal) {
    const bool wants_tls = refusal.reply() == nbd::OptionReply::err_tls_reqd;
    throw std::runtime_error(fmt::format(
        "list the exports of {}: {}{}",
        options.socket.empty() ? io::to_text({options.bind, options.port}) : options.socket,
        refusal.what(),
        wants_tls ? "; varve nbd --list speaks none, nbdinfo --list nbds://… does" : ""));
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace app
