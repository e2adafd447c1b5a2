// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/protocol.h"

/// The data of options and of their replies, as values.
///
/// Every decode() throws ProtocolError for malformed data, with the text and reply type that the
/// client gets (O7, H5, M6). Spec: NBD doc/proto.md, "Option types", "Option reply types". No I/O;
/// any thread.
namespace nbd {

/// Data of INFO and GO.
struct InfoRequest {
  std::string export_name;
  std::vector<uint16_t> wanted;  ///< numbers of enum Info; unknown ones are kept, and mean nothing

  bool wants(Info info) const;
  /// `option` names the request in the error text.
  static InfoRequest decode(std::span<const std::byte> data, std::string_view option);
  Bytes encode() const;
};

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
struct MetaContextRequest {
  std::string export_name;
  std::vector<std::string> queries;

  static MetaContextRequest decode(std::span<const std::byte> data);
  Bytes encode() const;
};

/// Data of EXPORT_NAME: the name is all there is.
std::string decode_export_name(std::span<const std::byte> data);

/// Appends one whole reply to `out`.
void append_reply(Bytes& out, Option option, OptionReply type, std::span<const std::byte> data);
void append_text_reply(Bytes& out, Option option, OptionReply type, std::string_view text);

// Data of the replies.
Bytes encode_server(std::string_view name, std::string_view description);
Bytes encode_info_export(uint64_t size, uint16_t transmission_flags);
Bytes encode_info_text(Info info, std::string_view text);
Bytes encode_info_block_size(uint32_t minimum, uint32_t preferred, uint32_t maximum);
Bytes encode_meta_context(uint32_t id, std::string_view name);

/// The reply to EXPORT_NAME: 10 bytes, and 124 zeroes unless the client asked for none (H4).
Bytes encode_export_name_reply(uint64_t size, uint16_t transmission_flags, bool zeroes);

}  // namespace nbd
