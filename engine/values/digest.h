#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

/// SHA-256, by GnuTLS: in names (names.h) and over sidecars (VR5). Pure.
namespace engine {

using Sha256 = std::array<std::byte, 32>;

Sha256 sha256(std::string_view bytes);

/// 64 lower-case digits.
std::string to_hex(const Sha256& digest);

}  // namespace engine
