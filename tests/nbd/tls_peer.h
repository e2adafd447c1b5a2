// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gnutls/gnutls.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/owned_fd.h"

namespace nbd::wire {

/// The client's end of a TLS connection, as most clients are written: on a blocking socket. For a
/// thread of its own. A result of GnuTLS below zero throws.
class TlsPeer {
 public:
  TlsPeer(io::OwnedFd fd, const std::string& user, const std::vector<std::byte>& key,
          const char* priority)
      : fd_(std::move(fd)) {
    check(gnutls_init(&session_, GNUTLS_CLIENT));
    check(gnutls_priority_set_direct(session_, priority, nullptr));
    check(gnutls_psk_allocate_client_credentials(&credentials_));
    const gnutls_datum_t datum{reinterpret_cast<unsigned char*>(const_cast<std::byte*>(key.data())),
                               static_cast<unsigned>(key.size())};
    check(
        gnutls_psk_set_client_credentials(credentials_, user.c_str(), &datum, GNUTLS_PSK_KEY_RAW));
    check(gnutls_credentials_set(session_, GNUTLS_CRD_PSK, credentials_));
    gnutls_transport_set_int(session_, fd_.get());
  }
  ~TlsPeer() {
    gnutls_deinit(session_);
    gnutls_psk_free_client_credentials(credentials_);
  }
  TlsPeer(const TlsPeer&) = delete;

  void handshake() {
    int result = 0;
    do {
      result = gnutls_handshake(session_);
    } while (result < 0 && gnutls_error_is_fatal(result) == 0);
    check(result);
  }
  void send(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = gnutls_record_send(session_, bytes.data(), bytes.size());
      check(sent);
      bytes = bytes.subspan(static_cast<size_t>(sent));
    }
  }
  /// 0 at the end, which a close-notify has announced.
  size_t receive(std::span<std::byte> into) {
    ssize_t got = 0;
    do {
      got = gnutls_record_recv(session_, into.data(), into.size());
    } while (got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED);
    check(got);
    return static_cast<size_t>(got);
  }
  void update_keys() { check(gnutls_session_key_update(session_, GNUTLS_KU_PEER)); }
  void finish() { check(gnutls_bye(session_, GNUTLS_SHUT_WR)); }
  gnutls_session_t session() const { return session_; }

 private:
  static void check(ssize_t result) {
    if (result < 0) throw std::runtime_error(gnutls_strerror(static_cast<int>(result)));
  }

  io::OwnedFd fd_;
  gnutls_session_t session_ = nullptr;
  gnutls_psk_client_credentials_t credentials_ = nullptr;
};

inline constexpr const char* kTls13 = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+PSK";
inline constexpr const char* kTls12 = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+PSK";

}  // namespace nbd::wire
