// SPDX-License-Identifier: Apache-2.0
#include "engine/values/digest.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <stdexcept>

namespace engine {

Sha256 sha256(std::string_view bytes) {
  Sha256 digest{};
  const int result = gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes.data(), bytes.size(), digest.data());
  if (result < 0) throw std::runtime_error(std::string("SHA-256: ") + gnutls_strerror(result));
  return digest;
}

struct Sha256Stream::State {
  gnutls_hash_hd_t handle = nullptr;
};

Sha256Stream::Sha256Stream() : state_(std::make_unique<State>()) {
  const int result = gnutls_hash_init(&state_->handle, GNUTLS_DIG_SHA256);
  if (result < 0) throw std::runtime_error(std::string("SHA-256: ") + gnutls_strerror(result));
}

Sha256Stream::~Sha256Stream() { gnutls_hash_deinit(state_->handle, nullptr); }

void Sha256Stream::add(std::span<const std::byte> bytes) {
  const int result = gnutls_hash(state_->handle, bytes.data(), bytes.size());
  if (result < 0) throw std::runtime_error(std::string("SHA-256: ") + gnutls_strerror(result));
}

Sha256 Sha256Stream::take() {
  Sha256 digest{};
  gnutls_hash_output(state_->handle, digest.data());
  return digest;
}

std::string to_hex(const Sha256& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const std::byte byte : digest) {
    text.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
    text.push_back(kDigits[std::to_integer<unsigned>(byte) & 15]);
  }
  return text;
}

}  // namespace engine
