// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

/// SHA-256, by GnuTLS: in names (names.h) and over sidecars (VR5). Pure.
namespace engine {

using Sha256 = std::array<std::byte, 32>;

Sha256 sha256(std::string_view bytes);

/// Of bytes that come in pieces.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  void add(std::span<const std::byte> bytes);
  /// Of all until now; begins anew.
  Sha256 take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 64 lower-case digits.
std::string to_hex(const Sha256& digest);

}  // namespace engine
