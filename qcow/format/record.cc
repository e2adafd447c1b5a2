// SPDX-License-Identifier: Apache-2.0
#include "qcow/format/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "io/big_endian.h"

namespace qcow {

namespace {

template <size_t kCount>
std::array<std::byte, kCount> take_array(io::BigEndianReader& in) {
  std::array<std::byte, kCount> taken;
  std::ranges::copy(in.take_bytes(kCount), taken.begin());
  return taken;
}

}  // namespace

std::string uuid_text(const Uuid& uuid) {
  std::string text;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(uuid[i]));
  }
  return text;
}

Uuid uuid_from_text(std::string_view text) {
  std::string digits(text);
  std::erase(digits, '-');
  Uuid uuid{};
  bool valid = digits.size() == 2 * uuid.size();
  for (size_t i = 0; valid && i < uuid.size(); ++i) {
    const char* const at = digits.data() + 2 * i;
    uint8_t byte = 0;
    const auto [end, error] = std::from_chars(at, at + 2, byte, 16);
    valid = error == std::errc() && end == at + 2;
    uuid[i] = std::byte{byte};
  }
  if (!valid || uuid_text(uuid) != text) {
    throw std::invalid_argument(fmt::format("\"{}\" is no UUID", text));
  }
  return uuid;
}

Record Record::decode(std::span<const std::byte> content) {
  io::BigEndianReader in(content);
  Record record;
  record.version = in.take<uint32_t>();
  record.flags = in.take<uint32_t>();
  record.image_uuid = take_array<16>(in);
  record.parent_uuid = take_array<16>(in);
  record.manifest_hash = take_array<32>(in);
  record.parent_manifest_hash = take_array<32>(in);
  record.publish_time = in.take<uint64_t>();
  const auto beyond = in.take_bytes(in.left());
  record.beyond.assign(beyond.begin(), beyond.end());
  return record;
}

std::vector<std::byte> Record::encode() const {
  std::vector<std::byte> content(kBytes + beyond.size());
  io::BigEndianWriter out(content);
  out.put(version).put(flags).put_bytes(image_uuid).put_bytes(parent_uuid);
  out.put_bytes(manifest_hash).put_bytes(parent_manifest_hash).put(publish_time);
  out.put_bytes(beyond);
  return content;
}

}  // namespace qcow
