// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/block_device.h"
#include "io/runtime.h"
#include "io/stream.h"
#include "io/sync.h"
#include "io/task_scope.h"
#include "nbd/inbox.h"
#include "nbd/negotiation.h"
#include "nbd/outbox.h"
#include "nbd/replies.h"
#include "nbd/tls.h"

namespace nbd {

struct ClientOptions {
  std::string export_name;
  bool structured_replies = true;
  bool extended_headers = true;  ///< asked for; a server without them is spoken to as it can
  std::vector<std::string> contexts = {"base:allocation", "qemu:allocation-depth"};
  std::shared_ptr<const TlsClient> tls{};  ///< null: none; else the server must take STARTTLS
  std::string tls_host{};                  ///< what the server's certificate is for; "": anything
};

/// An export of some server, as a block device: one connection, any number of requests in flight.
///
/// A request that the server refuses throws std::system_error with the server's error number and
/// text. Once the stream has failed, or the server broken the protocol, every request throws that
/// first failure. Ends by close(); then it may be destroyed. Belongs to the stream's thread.
class Client final : public io::BlockDevice {
 public:
  /// Shakes hands and opens the export. Throws ProtocolError or std::system_error.
  static io::Task<std::unique_ptr<Client>> open(io::Runtime runtime,
                                                std::unique_ptr<io::Stream> stream,
                                                ClientOptions options);
  ~Client() override;

  uint64_t size() const override { return info_.size; }
  uint32_t preferred_block_size() const override { return info_.block_bytes_preferred; }
  io::Task<void> read(uint64_t offset, std::span<std::byte> into) override;
  io::Task<void> write(uint64_t offset, io::Buffer from) override;
  io::Task<void> write_zeroes(uint64_t offset, uint64_t length, io::ZeroMode mode) override;
  io::Task<void> discard(uint64_t offset, uint64_t length) override;
  io::Task<void> flush() override;
  /// From the contexts that were selected; without them everything is data of this export.
  io::Task<std::vector<io::Extent>> extents(uint64_t offset, uint64_t length,
                                            size_t count_max) override;

  /// write() of bytes that stay where they are until it returns.
  io::Task<void> write_from(uint64_t offset, std::span<const std::byte> from, uint16_t flags = 0);

  /// BLOCK_STATUS as the server answers it: one answer per context, or per one of `context_ids`
  /// when the server takes such a choice.
  io::Task<std::vector<StatusPayload>> block_status(uint64_t offset, uint64_t length,
                                                    uint16_t flags = 0,
                                                    std::vector<uint32_t> context_ids = {});

  const ExportInfo& info() const { return info_; }
  const Negotiation& rules() const { return rules_; }
  const std::vector<OfferedContext>& contexts() const { return contexts_; }

  /// Fails whatever is under way, at once; close() still comes after it.
  void abort() noexcept { stream_->abort(); }

  /// Says good-bye and waits for the end of the stream; never throws. No request may be under way.
  io::Task<void> close();

 private:
  /// A request that waits for its answer, in the frame of whoever made it.
  struct Pending {
    Pending(io::Executor& executor, Request request)
        : request(request), done(executor), payload_returned(executor) {}
    Request request;
    std::span<std::byte> into{};  // of a READ
    uint64_t answered = 0;        // bytes of it that have arrived
    WireError error = WireError::none;
    std::string error_text;
    std::vector<StatusPayload> status;
    io::Event done;
    io::Event payload_returned;  // a server may answer before it has read all of the request
  };

  Client(io::Runtime runtime, std::unique_ptr<io::Stream> stream);
  io::Task<void> shake_hands(ClientOptions options);

  io::Task<void> perform(Pending& pending, std::span<const std::byte> payload);
  io::Task<void> write_zeroes_as_data(uint64_t offset, uint64_t length);
  io::Task<void> change(Command command, uint64_t offset, uint64_t length, uint16_t flags);
  uint64_t effect_bytes_max() const;
  uint32_t payload_bytes_max() const;
  std::optional<uint32_t> context_id(std::string_view name) const;

  io::Task<void> receive_replies();
  io::Task<bool> receive_reply();
  io::Task<void> receive_simple(SimpleReply reply);
  io::Task<void> receive_chunk(ChunkHeader header);
  io::Task<void> receive_data(Pending& pending, uint64_t length);
  io::Task<Bytes> receive_payload(const ChunkHeader& header);
  void take_chunk(Pending& pending, ChunkType type, std::span<const std::byte> payload);
  std::span<std::byte> part_of(Pending& pending, uint64_t offset, uint64_t length);
  Pending& pending_of(uint64_t cookie) const;
  void complete(Pending& pending);

  io::Runtime runtime_;
  std::unique_ptr<io::Stream> stream_;
  Inbox inbox_;
  Outbox requests_;  // messages on their way out, whichever direction that is
  ExportInfo info_;
  Negotiation rules_;
  std::vector<OfferedContext> contexts_;

  std::unordered_map<uint64_t, Pending*> pending_;  // by cookie
  io::Event asked_;
  uint64_t next_cookie_ = 1;
  uint32_t reads_pending_ = 0;
  bool closing_ = false;
  std::exception_ptr failure_;
  io::TaskScope sender_, receiver_;
};

}  // namespace nbd
