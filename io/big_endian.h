// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <endian.h>

#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string_view>

/// The one place where big-endian bytes become integers and back.
///
/// NBD's wire format and QCOW2's disk format are both big-endian. Codecs spell their layouts out
/// field by field with a BigEndianReader or BigEndianWriter; nothing is ever cast onto a struct.
namespace io {

template <std::unsigned_integral T>
constexpr T swap_big_endian(T value) noexcept {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return be16toh(value);
  if constexpr (sizeof(T) == 4) return be32toh(value);
  if constexpr (sizeof(T) == 8) return be64toh(value);
}

/// Reads one integer at `from`, which may have any alignment.
template <std::unsigned_integral T>
T load_be(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return swap_big_endian(value);
}

/// Writes one integer at `to`, which may have any alignment.
template <std::unsigned_integral T>
void store_be(std::byte* to, T value) noexcept {
  const T swapped = swap_big_endian(value);
  std::memcpy(to, &swapped, sizeof swapped);
}

/// Takes fields from the front of a byte range. Throws std::out_of_range past its end, so a
/// truncated message can never be read as zeroes.
class BigEndianReader {
 public:
  explicit BigEndianReader(std::span<const std::byte> from) : rest_(from) {}

  template <std::unsigned_integral T>
  T take() {
    return load_be<T>(take_bytes(sizeof(T)).data());
  }
  std::span<const std::byte> take_bytes(size_t count) {
    if (count > rest_.size()) throw std::out_of_range("message ends inside a field");
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::string_view take_text(size_t count) {
    const auto bytes = take_bytes(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  void skip(size_t count) { take_bytes(count); }
  size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

/// Puts fields at the front of a byte range. Throws std::out_of_range past its end.
class BigEndianWriter {
 public:
  explicit BigEndianWriter(std::span<std::byte> to) : whole_(to) {}

  template <std::unsigned_integral T>
  BigEndianWriter& put(T value) {
    store_be(claim(sizeof(T)), value);
    return *this;
  }
  BigEndianWriter& put_bytes(std::span<const std::byte> bytes) {
    if (!bytes.empty()) std::memcpy(claim(bytes.size()), bytes.data(), bytes.size());
    return *this;
  }
  BigEndianWriter& put_text(std::string_view text) {
    return put_bytes(std::as_bytes(std::span(text.data(), text.size())));
  }
  BigEndianWriter& put_zeroes(size_t count) {
    if (count > 0) std::memset(claim(count), 0, count);
    return *this;
  }
  size_t written() const { return written_; }

 private:
  std::byte* claim(size_t count) {
    assert(written_ <= whole_.size());
    if (count > whole_.size() - written_)
      throw std::out_of_range("message does not fit its buffer");
    std::byte* const at = whole_.data() + written_;
    written_ += count;
    return at;
  }
  std::span<std::byte> whole_;
  size_t written_ = 0;
};

}  // namespace io
