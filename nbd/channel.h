// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <string>

#include "io/stream.h"
#include "nbd/export.h"
#include "nbd/inbox.h"
#include "nbd/negotiation.h"
#include "nbd/outbox.h"

namespace nbd {

/// One connection in transmission, as all parts of its session see it: what was negotiated, both
/// directions, and why it ends.
///
/// Belongs to the thread of the export, which outlives it.
class Channel {
 public:
  Channel(std::unique_ptr<io::Stream> stream, std::span<const std::byte> read_ahead,
          Export& exported, Negotiation rules);

  Export& exported() const { return export_; }
  io::BlockDevice& device() const { return export_.device(); }
  const io::Runtime& runtime() const { return export_.home(); }
  Counters& counters() const { return export_.counters(); }
  const Negotiation& rules() const { return rules_; }
  /// Of a request.
  size_t header_bytes() const { return header_bytes_; }

  Inbox& inbox() { return inbox_; }
  Outbox& outbox() { return outbox_; }
  /// Bytes of a request have arrived.
  void note_traffic();

  /// Ends both directions at once.
  void abort() noexcept;
  bool is_aborted() const { return is_aborted_; }
  /// The server ends it in order, for which no other reason has been given.
  void close_by_server();
  /// It ends, or will by itself, through a fault that `reason` names.
  void end_abnormally(std::string reason);
  /// For lack of memory: a client without an answer would wait for ever, so the stream ends.
  void lose_client(std::exception_ptr cause) noexcept;
  /// The stream broke, or ended inside a request.
  void end_broken(const std::string& how);

 private:
  Export& export_;
  const Negotiation rules_;
  const size_t header_bytes_;
  std::unique_ptr<io::Stream> stream_;
  Inbox inbox_;
  Outbox outbox_;
  bool is_aborted_ = false;
  std::string end_reason_;  // set when the server ends the connection
};

}  // namespace nbd
