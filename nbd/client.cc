// SPDX-License-Identifier: Apache-2.0
#include "nbd/client.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/failure.h"
#include "nbd/client_handshake.h"

namespace nbd {
namespace {

constexpr uint64_t kZeroBytesAtOnce = 1 << 20;

/// Two descriptions of one range, of which either may be missing or stop short, as extents.
class ExtentMerger {
 public:
  ExtentMerger(const StatusPayload* allocation, const StatusPayload* depth)
      : allocation_(allocation), depth_(depth) {}

  /// Nothing when one of them has ended.
  std::optional<io::Extent> next(uint64_t length) {
    uint64_t allocation = 0, depth = 1;
    for (Cursor* const cursor : {&allocation_, &depth_}) {
      if (cursor->runs == nullptr) continue;
      if (cursor->index == cursor->runs->runs.size()) return std::nullopt;
      length = std::min(length, cursor->left());
    }
    if (allocation_.runs) allocation = allocation_.take(length);
    if (depth_.runs) depth = depth_.take(length);
    if (!depth_.runs && (allocation & kStateHole) != 0) depth = 0;
    const bool zero = allocation_.runs ? (allocation & kStateZero) != 0 : depth == 0;
    return io::Extent{length, zero, static_cast<uint32_t>(depth)};
  }

 private:
  static constexpr uint64_t kStateHole = 1 << 0, kStateZero = 1 << 1;  // of base:allocation
  struct Cursor {
    explicit Cursor(const StatusPayload* runs) : runs(runs) {}
    const StatusPayload* runs;
    size_t index = 0;
    uint64_t used = 0;  // bytes of runs[index]
    uint64_t left() const { return runs->runs[index].length - used; }
    uint64_t take(uint64_t length) {
      const uint64_t flags = runs->runs[index].flags;
      used += length;
      if (left() == 0) ++index, used = 0;
      return flags;
    }
  };
  Cursor allocation_, depth_;
};

/// Greets in plain, and continues inside TLS. Spec: the NBD protocol, NBD_OPT_STARTTLS.
io::Task<std::unique_ptr<io::Stream>> start_tls(io::Executor& executor,
                                                std::unique_ptr<io::Stream> plain,
                                                std::shared_ptr<const TlsClient> tls,
                                                std::string host) {
  {
    Inbox inbox(*plain);
    ClientHandshake handshake(*plain, inbox);
    co_await handshake.greet();
    const bool taken = co_await handshake.ask_for(Option::starttls);
    if (!taken) throw ProtocolError("the server has no TLS");
    // What came in plain must not be taken for what TLS protects.
    if (!inbox.ahead().empty()) throw ProtocolError("the server sends more before TLS has begun");
  }
  std::unique_ptr<TlsStream> stream = tls->connect(executor, *plain, host);
  co_await stream->handshake();
  stream->move_to(executor, std::move(plain));
  co_return stream;
}

}  // namespace

io::Task<std::unique_ptr<Client>> Client::open(io::Runtime runtime,
                                               std::unique_ptr<io::Stream> stream,
                                               ClientOptions options) {
  if (options.tls) {
    stream = co_await start_tls(runtime.executor, std::move(stream), options.tls, options.tls_host);
  }
  std::unique_ptr<Client> client(new Client(runtime, std::move(stream)));
  io::Task<void> shaking_hands = client->shake_hands(std::move(options));
  co_await std::move(shaking_hands);
  client->sender_.spawn(client->requests_.run());
  client->receiver_.spawn(client->receive_replies());
  co_return client;
}

Client::Client(io::Runtime runtime, std::unique_ptr<io::Stream> stream)
    : runtime_(runtime),
      stream_(std::move(stream)),
      inbox_(*stream_),
      requests_(runtime.executor, *stream_),
      asked_(runtime.executor) {}

Client::~Client() = default;

io::Task<void> Client::shake_hands(ClientOptions options) {
  ClientHandshake handshake(*stream_, inbox_);
  if (!options.tls) co_await handshake.greet();
  if (options.extended_headers) {
    rules_.extended_headers = co_await handshake.ask_for(Option::extended_headers);
  }
  rules_.structured_replies = rules_.extended_headers;
  if (options.structured_replies && !rules_.extended_headers) {
    rules_.structured_replies = co_await handshake.ask_for(Option::structured_reply);
  }
  if (rules_.structured_replies && !options.contexts.empty()) {
    auto setting = handshake.contexts(Option::set_meta_context, options.export_name,
                                      std::move(options.contexts));
    contexts_ = co_await std::move(setting);
  }
  rules_.has_contexts = !contexts_.empty();
  io::Task<ExportInfo> going = handshake.info(Option::go, std::move(options.export_name));
  info_ = co_await std::move(going);
}

io::Task<void> Client::read(uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const auto part = into.first(std::min<size_t>(into.size(), payload_bytes_max()));
    Pending pending(runtime_.executor, {0, Command::read, 0, offset, part.size()});
    pending.into = part;
    co_await perform(pending, {});
    into = into.subspan(part.size());
    offset += part.size();
  }
}

io::Task<void> Client::write(uint64_t offset, io::Buffer from) {
  co_await write_from(offset, from.bytes());
}

io::Task<void> Client::write_from(uint64_t offset, std::span<const std::byte> from,
                                  uint16_t flags) {
  if (rules_.extended_headers) flags |= kFlagPayloadLen;
  while (!from.empty()) {
    const auto part = from.first(std::min<size_t>(from.size(), payload_bytes_max()));
    Pending pending(runtime_.executor,
                    {flags, Command::write, 0, offset, part.size(), part.size()});
    co_await perform(pending, part);
    from = from.subspan(part.size());
    offset += part.size();
  }
}

io::Task<void> Client::write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) {
  uint16_t flags = 0;
  if (mode == io::ZeroMode::no_hole) flags = kFlagNoHole;
  if (mode == io::ZeroMode::fast_or_fail) {
    if (!info_.has(kSendFastZero)) throw io::failure("zero", info_.name, offset, length, ENOTSUP);
    flags = kFlagFastZero;
  }
  if (!info_.has(kSendWriteZeroes)) {
    co_await write_zeroes_as_data(offset, length);
    co_return;
  }
  co_await change(Command::write_zeroes, offset, length, flags);
}

/// Of a server that did not offer the command: it may answer with an error, or end the connection.
io::Task<void> Client::write_zeroes_as_data(uint64_t offset, uint64_t length) {
  const std::vector<std::byte> zeroes(std::min<uint64_t>(length, kZeroBytesAtOnce));
  while (length > 0) {
    const uint64_t part = std::min<uint64_t>(length, zeroes.size());
    co_await write_from(offset, std::span(zeroes).first(part));
    offset += part;
    length -= part;
  }
}

io::Task<void> Client::discard(uint64_t offset, uint64_t length) {
  if (!info_.has(kSendTrim)) co_return;  // it is advice
  co_await change(Command::trim, offset, length, 0);
}

io::Task<void> Client::change(Command command, uint64_t offset, uint64_t length, uint16_t flags) {
  while (length > 0) {
    const uint64_t part = std::min(length, effect_bytes_max());
    Pending pending(runtime_.executor, {flags, command, 0, offset, part});
    co_await perform(pending, {});
    offset += part;
    length -= part;
  }
}

io::Task<void> Client::flush() {
  // Such a server has no cache of its own, or nothing that a client could do about it.
  if (!info_.has(kSendFlush)) co_return;
  Pending pending(runtime_.executor, {0, Command::flush, 0, 0, 0});
  co_await perform(pending, {});
}

io::Task<std::vector<StatusPayload>> Client::block_status(uint64_t offset, uint64_t length,
                                                          uint16_t flags,
                                                          std::vector<uint32_t> context_ids) {
  const uint64_t part = std::min(length, effect_bytes_max());
  Pending pending(runtime_.executor, {flags, Command::block_status, 0, offset, part});
  Bytes payload;
  if (rules_.status_filter() && !context_ids.empty()) {
    payload = StatusFilter{part, std::move(context_ids)}.encode();
    pending.request.flags |= kFlagPayloadLen;
    pending.request.payload_bytes = payload.size();
  }
  co_await perform(pending, payload);
  co_return std::move(pending.status);
}

io::Task<std::vector<io::Extent>> Client::extents(uint64_t offset, uint64_t length,
                                                  size_t count_max) {
  const std::optional<uint32_t> allocation = context_id("base:allocation");
  const std::optional<uint32_t> depth = context_id("qemu:allocation-depth");
  if (!allocation && !depth) co_return std::vector<io::Extent>{{length, false, 1}};
  io::Task<std::vector<StatusPayload>> asking = block_status(offset, length);
  const std::vector<StatusPayload> answers = co_await std::move(asking);
  const auto answer_of = [&](std::optional<uint32_t> id) -> const StatusPayload* {
    const auto found = std::ranges::find_if(
        answers, [&](const StatusPayload& answer) { return answer.context_id == id; });
    return found == answers.end() ? nullptr : &*found;
  };
  ExtentMerger merger(answer_of(allocation), answer_of(depth));
  std::vector<io::Extent> extents;
  while (length > 0) {
    const std::optional<io::Extent> next = merger.next(length);
    if (!next) break;
    length -= next->length;
    if (!extents.empty() && extents.back().same_kind(*next)) {
      extents.back().length += next->length;
    } else if (extents.size() < count_max) {
      extents.push_back(*next);
    } else {
      break;
    }
  }
  co_return extents;
}

std::optional<uint32_t> Client::context_id(std::string_view name) const {
  const auto found = std::ranges::find(contexts_, name, &OfferedContext::name);
  if (found == contexts_.end()) return std::nullopt;
  return found->id;
}

/// Without extended headers a length has 32 bits, and the most that ends at a block is asked for.
uint64_t Client::effect_bytes_max() const {
  if (rules_.extended_headers) return ~uint64_t{0};
  return (uint64_t{1} << 32) - std::max<uint64_t>(info_.block_bytes_preferred, 65536);
}

uint32_t Client::payload_bytes_max() const {
  return std::clamp<uint32_t>(info_.payload_bytes_max, 4096, kPayloadBytesAdvertised);
}

}  // namespace nbd
