// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <endian.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

/// The one place where little-endian bytes become integers: what guests write on their disks.
/// Everything of varve's own is big-endian (big_endian.h).
namespace io {

/// Reads one integer at `from`, which may have any alignment.
template <std::unsigned_integral T>
T load_le(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  if constexpr (sizeof(T) == 2) return le16toh(value);
  if constexpr (sizeof(T) == 4) return le32toh(value);
  if constexpr (sizeof(T) == 8) return le64toh(value);
  return value;
}

}  // namespace io
