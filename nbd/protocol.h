// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// The NBD wire format as values: every constant, request and reply, and no I/O.
///
/// Invariant: what encode() writes, decode() reads back; decode() throws ProtocolError (or
/// std::out_of_range past the end of a message) and never guesses. Spec: NBD doc/proto.md; the ids
/// (H2, O7, C17 …) are rows of docs/nbd-support.md. Any thread.
namespace nbd {

/// The number that an enumerator has on the wire.
template <class Enum>
requires std::is_enum_v<Enum>
constexpr std::underlying_type_t<Enum> number_of(Enum value) {
  return static_cast<std::underlying_type_t<Enum>>(value);
}

/// Bytes of one message under construction.
using Bytes = std::vector<std::byte>;

// Magic numbers.
inline constexpr uint64_t kGreetingMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kChunkMagic = 0x668e33ef;
inline constexpr uint32_t kExtendedReplyMagic = 0x6e8a278c;

// Handshake flags of the server and of the client: the same two bits (H1, H2).
inline constexpr uint16_t kFixedNewstyle = 1 << 0;
inline constexpr uint16_t kNoZeroes = 1 << 1;

// Limits (H5, H6, M6, B3, C3).
inline constexpr size_t kStringBytesMax = 4096;
inline constexpr uint32_t kOptionBytesMax = 65536;
inline constexpr uint32_t kContextQueriesMax = 64;
inline constexpr uint32_t kPayloadBytesAdvertised = 32 << 20;
inline constexpr uint32_t kPayloadBytesMax = 64 << 20;
inline constexpr size_t kErrorTextBytesMax = 256;

enum class Option : uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  peek_export = 4,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  err_unsup = 0x80000001,
  err_policy = 0x80000002,
  err_invalid = 0x80000003,
  err_platform = 0x80000004,
  err_tls_reqd = 0x80000005,
  err_unknown = 0x80000006,
  err_shutdown = 0x80000007,
  err_too_big = 0x80000009,
  err_ext_header_reqd = 0x8000000a,
};

enum class Info : uint16_t { exported = 0, name = 1, description = 2, block_size = 3 };

// Transmission flags (F1).
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendFastZero = 1 << 11;
inline constexpr uint16_t kBlockStatusPayload = 1 << 12;

enum class Command : uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
  resize = 8,
};

/// "WRITE_ZEROES"; "command 77" for an unknown one.
std::string command_name(Command command);

// Command flags.
inline constexpr uint16_t kFlagFua = 1 << 0;
inline constexpr uint16_t kFlagNoHole = 1 << 1;
inline constexpr uint16_t kFlagDf = 1 << 2;
inline constexpr uint16_t kFlagReqOne = 1 << 3;
inline constexpr uint16_t kFlagFastZero = 1 << 4;
inline constexpr uint16_t kFlagPayloadLen = 1 << 5;  ///< extended headers only (X-1)

/// Error numbers of the wire, equal to Linux's.
enum class WireError : uint32_t {
  none = 0,
  eperm = 1,
  eio = 5,
  enomem = 12,
  einval = 22,
  enospc = 28,
  eoverflow = 75,
  enotsup = 95,
  eshutdown = 108,
};

/// What an errno of the storage becomes on the wire: ENOSPC, EDQUOT, EFBIG → ENOSPC; EROFS, EPERM,
/// EACCES → EPERM; ENOMEM and ENOTSUP stay; all else is EIO.
WireError wire_error(int storage_errno);

/// The peer broke the protocol, or asked for something in a malformed way.
class ProtocolError : public std::runtime_error {
 public:
  explicit ProtocolError(const std::string& text, OptionReply reply = OptionReply::err_invalid)
      : std::runtime_error(text), reply_(reply) {}
  /// How an option is answered that failed with this.
  OptionReply reply() const { return reply_; }

 private:
  OptionReply reply_;
};

/// H5: at most 4,096 bytes of valid UTF-8 without NUL. Throws ProtocolError naming `what`.
void check_string(std::string_view text, std::string_view what);

/// The 18 bytes that a server says first (H1).
struct Greeting {
  static constexpr size_t kWireBytes = 18;
  static std::array<std::byte, kWireBytes> encode();
};

/// Spec: "Fixed newstyle negotiation", an option as the client sends it, without its data.
struct OptionHeader {
  static constexpr size_t kWireBytes = 16;
  Option option = Option::abort;
  uint32_t length = 0;  ///< bytes of data that follow

  /// Throws ProtocolError when the magic is wrong; the length is the caller's to judge.
  static OptionHeader decode(std::span<const std::byte, kWireBytes> wire);
  std::array<std::byte, kWireBytes> encode() const;
};

/// NBD request, the same whichever of the two headers it came in. Spec: "Request message".
///
/// `length` is what the command is about. `payload_bytes` follow the header on the wire: those of a
/// WRITE, and with extended headers whatever PAYLOAD_LEN announces, for any other command. A WRITE
/// has its payload without that flag too, because clients leave it out (qemu 10.0); taking the
/// bytes for requests would let whoever writes them command the export.
struct Request {
  static constexpr size_t kWireBytes = 28;
  static constexpr uint32_t kMagic = 0x25609513;
  static constexpr size_t kExtendedWireBytes = 32;
  static constexpr uint32_t kExtendedMagic = 0x21e41c71;
  uint16_t flags = 0;
  Command command = Command::read;
  uint64_t cookie = 0;  ///< opaque to us, echoed in the reply
  uint64_t offset = 0;  ///< bytes into the export
  uint64_t length = 0;  ///< bytes; at most 32 bits unless extended headers are in use
  uint64_t payload_bytes = 0;

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
  /// Throws ProtocolError when the magic is wrong; all other checks belong to validate().
  static Request decode(std::span<const std::byte, kWireBytes> wire);
  std::array<std::byte, kWireBytes> encode() const;
  /// With PAYLOAD_LEN, and in a WRITE, the header's length is that of the payload; what a
  /// BLOCK_STATUS of that form is about stands in its payload, and `length` is 0 until that has
  /// been read.
  static Request decode_extended(std::span<const std::byte, kExtendedWireBytes> wire);
  std::array<std::byte, kExtendedWireBytes> encode_extended() const;
};

/// The payload of a BLOCK_STATUS with PAYLOAD_LEN: which contexts are asked, over how much.
struct StatusFilter {
  uint64_t length = 0;  ///< bytes of the export
  std::vector<uint32_t> context_ids;

  static constexpr size_t wire_bytes(size_t id_count) {
    return sizeof(uint64_t) + id_count * sizeof(uint32_t);
  }
  /// Throws ProtocolError when it is not a whole number of ids, or names none or one of them twice.
  static StatusFilter decode(std::span<const std::byte> wire);
  Bytes encode() const;
};

/// Spec: "Simple reply message".
struct SimpleReply {
  static constexpr size_t kWireBytes = 16;
  WireError error = WireError::none;
  uint64_t cookie = 0;

  static SimpleReply decode(std::span<const std::byte, kWireBytes> wire);
  std::array<std::byte, kWireBytes> encode() const;
};

enum class ChunkType : uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_ext = 6,
  error = 0x8001,
  error_offset = 0x8002,
};

/// Header of one chunk, without its payload. Spec: "Structured reply chunk message", "Extended
/// reply chunk message".
struct ChunkHeader {
  static constexpr size_t kWireBytes = 20;
  static constexpr size_t kExtendedWireBytes = 32;
  static constexpr uint16_t kDone = 1 << 0;
  bool done = false;
  ChunkType type = ChunkType::none;
  uint64_t cookie = 0;
  uint64_t length = 0;  ///< bytes of payload; 32 bits in the compact form
  uint64_t offset = 0;  ///< that of the request; only in the extended form (X-2)

  static ChunkHeader decode(std::span<const std::byte, kWireBytes> wire);
  std::array<std::byte, kWireBytes> encode() const;
  static ChunkHeader decode_extended(std::span<const std::byte, kExtendedWireBytes> wire);
  std::array<std::byte, kExtendedWireBytes> encode_extended() const;
};

// Payloads of structured chunks (P3). OFFSET_DATA's data follows the offset.
inline constexpr size_t kDataChunkPrefixBytes = 8;
inline constexpr size_t kHoleChunkBytes = 12;
std::array<std::byte, kDataChunkPrefixBytes> encode_data_prefix(uint64_t offset);
std::array<std::byte, kHoleChunkBytes> encode_hole(uint64_t offset, uint32_t length);
/// At most 256 bytes of text are sent, truncated between characters.
Bytes encode_error(WireError error, std::string_view text);
Bytes encode_error_offset(WireError error, std::string_view text, uint64_t offset);

/// One descriptor of a BLOCK_STATUS reply, wide enough for extended headers.
struct StatusRun {
  uint64_t length = 0;  ///< bytes, never 0
  uint64_t flags = 0;
  bool operator==(const StatusRun&) const = default;
};
Bytes encode_block_status(uint32_t context_id, std::span<const StatusRun> runs);
Bytes encode_block_status_ext(uint32_t context_id, std::span<const StatusRun> runs);

}  // namespace nbd
