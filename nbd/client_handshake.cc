// SPDX-License-Identifier: Apache-2.0
#include "nbd/client_handshake.h"

#include <fmt/format.h>

#include "io/big_endian.h"
#include "io/failure.h"

namespace nbd {
namespace {

/// A server has as many exports, at most, as this client remembers.
constexpr size_t kRepliesMax = 65536;

}  // namespace

io::Task<void> ClientHandshake::greet() {
  if (!co_await inbox_.fill(Greeting::kWireBytes, Inbox::kBufferBytes)) {
    throw io::failure("receive from", stream_.peer(), ECONNRESET);
  }
  io::BigEndianReader in(inbox_.take<Greeting::kWireBytes>());
  if (in.take<uint64_t>() != kGreetingMagic || in.take<uint64_t>() != kOptionMagic) {
    throw ProtocolError("the server does not speak newstyle NBD");
  }
  const auto flags = in.take<uint16_t>();
  if ((flags & kFixedNewstyle) == 0) {
    throw ProtocolError("the server does not speak fixed newstyle NBD");
  }
  std::array<std::byte, sizeof(uint32_t)> answer;
  io::store_be(answer.data(), uint32_t{flags} & (kFixedNewstyle | kNoZeroes));
  const iovec piece = io::as_iovec(answer);
  co_await stream_.send({&piece, 1});
}

io::Task<ClientHandshake::Data> ClientHandshake::ask(Option option, Bytes data,
                                                     OptionReply expected) {
  const auto front = OptionHeader{option, static_cast<uint32_t>(data.size())}.encode();
  const std::array<iovec, 2> pieces = {io::as_iovec(front), io::as_iovec(data)};
  co_await stream_.send(std::span(pieces).first(data.empty() ? 1 : 2));
  Data replies;
  for (;;) {
    if (!co_await inbox_.fill(OptionReplyHeader::kWireBytes, Inbox::kBufferBytes)) {
      throw io::failure("receive from", stream_.peer(), ECONNRESET);
    }
    const auto header = OptionReplyHeader::decode(inbox_.take<OptionReplyHeader::kWireBytes>());
    Bytes reply(header.length);
    co_await inbox_.receive(reply, Inbox::kBufferBytes);
    if (header.option != option) throw ProtocolError("a reply to an option that was not sent");
    if (header.is_error()) {
      std::string text(reinterpret_cast<const char*>(reply.data()), reply.size());
      if (text.empty()) text = fmt::format("option {} is refused", number_of(option));
      throw ProtocolError(text, header.type);
    }
    if (header.is_final()) co_return std::move(replies);
    if (header.type != expected || replies.size() >= kRepliesMax) {
      throw ProtocolError(
          fmt::format("option {}: unexpected reply {}", number_of(option), number_of(header.type)));
    }
    replies.push_back(std::move(reply));
  }
}

io::Task<bool> ClientHandshake::ask_for(Option option) {
  try {
    io::Task<Data> asking = ask(option, {}, OptionReply::ack);
    co_await std::move(asking);
  } catch (const ProtocolError& refusal) {
    if (refusal.reply() != OptionReply::err_unsup) throw;
    co_return false;
  }
  co_return true;
}

io::Task<std::vector<ListedExport>> ClientHandshake::list() {
  std::vector<ListedExport> exports;
  io::Task<Data> asking = ask(Option::list, {}, OptionReply::server);
  const Data replies = co_await std::move(asking);
  for (const Bytes& reply : replies) {
    exports.push_back(ListedExport::decode(reply));
  }
  co_return exports;
}

io::Task<std::vector<OfferedContext>> ClientHandshake::contexts(Option option,
                                                                std::string export_name,
                                                                std::vector<std::string> queries) {
  Bytes data = MetaContextRequest{std::move(export_name), std::move(queries)}.encode();
  std::vector<OfferedContext> offered;
  io::Task<Data> asking = ask(option, std::move(data), OptionReply::meta_context);
  const Data replies = co_await std::move(asking);
  for (const Bytes& reply : replies) {
    offered.push_back(OfferedContext::decode(reply));
  }
  co_return offered;
}

io::Task<ExportInfo> ClientHandshake::info(Option option, std::string export_name) {
  const std::vector<uint16_t> wanted = {number_of(Info::name), number_of(Info::description),
                                        number_of(Info::block_size)};
  ExportInfo info;
  info.name = export_name;
  Bytes data = InfoRequest{std::move(export_name), wanted}.encode();
  io::Task<Data> asking = ask(option, std::move(data), OptionReply::info);
  const Data replies = co_await std::move(asking);
  for (const Bytes& reply : replies) {
    info.take(reply);
  }
  if (!info.is_known) throw ProtocolError("the server does not say how large the export is");
  co_return info;
}

io::Task<void> ClientHandshake::abort() {
  io::Task<Data> asking = ask(Option::abort, {}, OptionReply::ack);
  co_await std::move(asking);
  co_await stream_.finish_sending();
  co_await inbox_.discard_until_end();
}

}  // namespace nbd
