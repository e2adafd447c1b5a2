// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/clock.h"
#include "io/executor.h"
#include "io/stream.h"
#include "nbd/export_table.h"
#include "nbd/inbox.h"
#include "nbd/options.h"
#include "nbd/tls.h"

namespace nbd {

/// A metadata context that SET_META_CONTEXT selected.
struct SelectedContext {
  uint32_t id = 0;   ///< as the client knows it
  size_t index = 0;  ///< into Export::contexts()
};

/// What all handshakes of a server share and obey. Outlives them and their sessions; any thread.
struct Admission {
  uint32_t connections_max = 1024;        ///< X2: in transmission
  std::atomic<uint32_t> connections = 0;  ///< in transmission now
  std::atomic<bool> draining = false;     ///< only ABORT is answered (O17)
};

/// One of the server's connections in transmission, counted while it lives.
class AdmissionSlot {
 public:
  explicit AdmissionSlot(Admission& of) : of_(&of) { ++of.connections; }
  AdmissionSlot(AdmissionSlot&& other) noexcept : of_(std::exchange(other.of_, nullptr)) {}
  AdmissionSlot& operator=(AdmissionSlot&& other) noexcept {
    std::swap(of_, other.of_);
    return *this;
  }
  ~AdmissionSlot() {
    if (of_) --of_->connections;
  }

 private:
  Admission* of_;
};

/// What a handshake that reached transmission agreed on.
struct Negotiated {
  AdmissionSlot slot;
  ConnectionPlace place;
  Negotiation rules;
  std::vector<SelectedContext> contexts;
};

struct HandshakeSettings {
  io::Duration option_patience = std::chrono::seconds(10);  ///< for each (H9)
  uint32_t options_max = 65536;                             ///< then drop (H10)
};

/// Speaks the fixed newstyle handshake with one client, up to transmission or the end.
///
/// Spec: docs/nbd-support.md, "Handshake", "Options". Belongs to the listener's thread.
class Handshake {
 public:
  Handshake(io::Executor& executor, io::Clock& clock, io::Stream& stream, Visibility visible,
            Admission& admission, HandshakeSettings settings = {}, TlsAccess tls = {});

  /// Nothing when the client left, in good order or not (H2: quietly). Throws ProtocolError when it
  /// is to be dropped, with the reason. The server's rest of the work is to close the stream.
  io::Task<std::optional<Negotiated>> run();

  /// What the client has already sent of its transmission phase.
  std::span<const std::byte> read_ahead() const { return inbox_.ahead(); }

  /// The TLS that the client has negotiated, over the stream given; null without.
  std::unique_ptr<TlsStream> take_tls() { return std::move(tls_); }

 private:
  enum class Next : uint8_t { option, list, transmission, end, tls };

  io::Task<std::optional<Negotiated>> negotiate();
  io::Task<bool> receive_client_flags();
  io::Task<std::optional<OptionHeader>> receive_option();
  io::Task<void> send(const Bytes& reply);
  io::Task<void> send_list();
  io::Task<void> acknowledge_abort();

  // One option each. They append their replies to `reply`, and throw ProtocolError to refuse.
  io::Task<Next> answer(OptionHeader header, Bytes& reply);
  io::Task<Next> answer_or_refuse(Option option, Bytes& reply);
  io::Task<Next> answer_info(Option option, Bytes& reply);
  void answer_structured_reply(Bytes& reply);
  io::Task<void> answer_meta_context(Option option, Bytes& reply);
  Next answer_starttls(Bytes& reply);
  void answer_extended_headers(Bytes& reply);
  io::Task<void> enter_by_name(Bytes& reply);

  io::Task<std::shared_ptr<Export>> find_export(std::string name);
  ConnectionPlace take_place(Export& exported) const;
  void check_admission() const;
  Negotiation rules_for(const Export& exported) const;
  void enter(ConnectionPlace place);
  void restart_patience();

  // handshake_tls.cc
  void require_tls_before(Option option) const;
  void refuse_early_bytes() const;
  io::Task<void> enter_tls();
  bool may_need_tls() const { return access_.mode == TlsMode::on && !tls_; }

  io::Executor& executor_;
  io::Clock& clock_;
  io::Stream& transport_;
  Visibility visible_;
  Admission& admission_;
  const HandshakeSettings settings_;
  const TlsAccess access_;
  std::unique_ptr<TlsStream> tls_;
  io::Stream* stream_;  // `transport_`, or TLS over it
  Inbox inbox_;
  std::unique_ptr<io::Clock::Alarm> patience_;
  bool out_of_patience_ = false;

  bool fixed_newstyle_ = false, no_zeroes_ = false;
  bool structured_replies_ = false, extended_headers_ = false;
  std::string contexts_export_;  // the canonical name that `contexts_` belongs to
  std::vector<SelectedContext> contexts_;
  Bytes data_;  // of the option being answered
  std::optional<Negotiated> outcome_;
};

}  // namespace nbd
