// SPDX-License-Identifier: Apache-2.0
#include "nbd/options.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/big_endian.h"

namespace nbd {

using io::BigEndianReader;
using io::BigEndianWriter;

bool InfoRequest::wants(Info info) const {
  return std::ranges::find(wanted, number_of(info)) != wanted.end();
}

InfoRequest InfoRequest::decode(std::span<const std::byte> data, std::string_view option) {
  const auto malformed = [&] { return ProtocolError(fmt::format("malformed {} request", option)); };
  constexpr size_t kFixedBytes = sizeof(uint32_t) + sizeof(uint16_t);
  if (data.size() < kFixedBytes) throw malformed();
  BigEndianReader in(data);
  const uint32_t name_bytes = in.take<uint32_t>();
  if (name_bytes > data.size() - kFixedBytes) throw malformed();
  InfoRequest request;
  request.export_name = in.take_text(name_bytes);
  const size_t count = in.take<uint16_t>();
  if (in.left() != count * sizeof(uint16_t)) throw malformed();
  check_string(request.export_name, "export name");
  request.wanted.reserve(count);
  while (in.left() > 0) request.wanted.push_back(in.take<uint16_t>());
  return request;
}

Bytes InfoRequest::encode() const {
  Bytes data(sizeof(uint32_t) + export_name.size() + sizeof(uint16_t) * (1 + wanted.size()));
  BigEndianWriter out(data);
  out.put(static_cast<uint32_t>(export_name.size())).put_text(export_name);
  out.put(static_cast<uint16_t>(wanted.size()));
  for (const uint16_t info : wanted) out.put(info);
  return data;
}

MetaContextRequest MetaContextRequest::decode(std::span<const std::byte> data) {
  BigEndianReader in(data);
  const auto take_length = [&in](std::string_view what) {
    if (in.left() < sizeof(uint32_t)) {
      throw ProtocolError(fmt::format("the option's data ends before the {}", what));
    }
    return in.take<uint32_t>();
  };
  const auto take_text = [&](std::string_view what) {
    const uint32_t length = take_length(fmt::format("length of the {}", what));
    if (length > in.left()) {
      throw ProtocolError(fmt::format("the {} is longer than the option's data", what));
    }
    const std::string text(in.take_text(length));
    check_string(text, what);
    return text;
  };
  MetaContextRequest request;
  request.export_name = take_text("export name");
  const uint32_t count = take_length("number of context queries");
  if (count > kContextQueriesMax) {
    throw ProtocolError(
        fmt::format("{} context queries are more than {}", count, kContextQueriesMax),
        OptionReply::err_too_big);
  }
  for (uint32_t index = 0; index < count; ++index) {
    request.queries.push_back(take_text("context query"));
  }
  if (in.left() != 0) throw ProtocolError("the option has data after its last context query");
  return request;
}

Bytes MetaContextRequest::encode() const {
  size_t size = 2 * sizeof(uint32_t) + export_name.size();
  for (const std::string& query : queries) size += sizeof(uint32_t) + query.size();
  Bytes data(size);
  BigEndianWriter out(data);
  out.put(static_cast<uint32_t>(export_name.size())).put_text(export_name);
  out.put(static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    out.put(static_cast<uint32_t>(query.size())).put_text(query);
  }
  return data;
}

std::string decode_export_name(std::span<const std::byte> data) {
  const std::string name(reinterpret_cast<const char*>(data.data()), data.size());
  check_string(name, "export name");
  return name;
}

void append_reply(Bytes& out, Option option, OptionReply type, std::span<const std::byte> data) {
  constexpr size_t kHeaderBytes = 20;
  const size_t start = out.size();
  out.resize(start + kHeaderBytes + data.size());
  BigEndianWriter(std::span(out).subspan(start))
      .put(kOptionReplyMagic)
      .put(number_of(option))
      .put(number_of(type))
      .put(static_cast<uint32_t>(data.size()))
      .put_bytes(data);
}

void append_text_reply(Bytes& out, Option option, OptionReply type, std::string_view text) {
  append_reply(out, option, type, std::as_bytes(std::span(text.data(), text.size())));
}

Bytes encode_server(std::string_view name, std::string_view description) {
  Bytes data(sizeof(uint32_t) + name.size() + description.size());
  BigEndianWriter(data)
      .put(static_cast<uint32_t>(name.size()))
      .put_text(name)
      .put_text(description);
  return data;
}

Bytes encode_info_export(uint64_t size, uint16_t transmission_flags) {
  Bytes data(sizeof(uint16_t) + sizeof size + sizeof transmission_flags);
  BigEndianWriter(data).put(number_of(Info::exported)).put(size).put(transmission_flags);
  return data;
}

Bytes encode_info_text(Info info, std::string_view text) {
  Bytes data(sizeof(uint16_t) + text.size());
  BigEndianWriter(data).put(number_of(info)).put_text(text);
  return data;
}

Bytes encode_info_block_size(uint32_t minimum, uint32_t preferred, uint32_t maximum) {
  Bytes data(sizeof(uint16_t) + 3 * sizeof(uint32_t));
  BigEndianWriter(data).put(number_of(Info::block_size)).put(minimum).put(preferred).put(maximum);
  return data;
}

Bytes encode_meta_context(uint32_t id, std::string_view name) {
  Bytes data(sizeof id + name.size());
  BigEndianWriter(data).put(id).put_text(name);
  return data;
}

Bytes encode_export_name_reply(uint64_t size, uint16_t transmission_flags, bool zeroes) {
  constexpr size_t kPaddingBytes = 124;
  Bytes reply(sizeof size + sizeof transmission_flags + (zeroes ? kPaddingBytes : 0));
  BigEndianWriter out(reply);
  out.put(size).put(transmission_flags).put_zeroes(zeroes ? kPaddingBytes : 0);
  return reply;
}

}  // namespace nbd
