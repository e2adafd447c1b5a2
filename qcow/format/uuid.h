// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "io/big_endian.h"
#include "io/runtime.h"
#include "qcow/format/record.h"

namespace qcow {

/// A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds since 1970, then random
/// bits, so that the identities of images sort by age.
inline Uuid make_uuid_v7(uint64_t unix_millis, uint64_t random_a, uint64_t random_b) {
  constexpr uint64_t kVersion = 0x7000;
  constexpr uint64_t kVariant = uint64_t{2} << 62;
  Uuid uuid;
  io::store_be(uuid.data(), (unix_millis << 16) | kVersion | (random_a & 0x0fff));
  io::store_be(uuid.data() + 8, kVariant | (random_b >> 2));
  return uuid;
}

/// A fresh identity for an image.
inline Uuid make_uuid(const io::Runtime& runtime) {
  const auto since_epoch = runtime.clock.wall_time().time_since_epoch();
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
  return make_uuid_v7(static_cast<uint64_t>(millis), runtime.random.next(), runtime.random.next());
}

}  // namespace qcow
