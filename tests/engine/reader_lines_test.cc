// SPDX-License-Identifier: Apache-2.0
#include "engine/care/reader_lines.h"

#include <gtest/gtest.h>

/// What a verification and its second reader say to each other.
namespace engine {
namespace {

using Kind = ReaderLine::Kind;

std::string_view without_newline(const std::string& line) {
  EXPECT_EQ(line.back(), '\n');
  return std::string_view(line).substr(0, line.size() - 1);
}

TEST(ReaderLines, AreReadAsTheyWereSaid) {
  ReaderLine sum{.kind = Kind::sum, .offset = 1 << 20};
  for (size_t i = 0; i < sum.sum.size(); ++i) sum.sum[i] = static_cast<std::byte>(i * 17);
  EXPECT_EQ(encode(sum), "sum 1048576 00112233445566778899aabbccddeeff\n");
  for (const ReaderLine& line :
       {sum, ReaderLine{.kind = Kind::ready, .offset = 10737418240},
        ReaderLine{.kind = Kind::failed, .text = "open: no such file"},
        ReaderLine{.kind = Kind::unread, .offset = 65536, .text = "unable to seek offset"}}) {
    EXPECT_EQ(decode_reader_line(without_newline(encode(line))), line);
  }
  const ReaderRequest request{65536, 16};
  EXPECT_EQ(decode_reader_request(without_newline(encode(request))), request);
}

TEST(ReaderLines, ATextStaysOneLineAndIsCut) {
  const ReaderLine broken{.kind = Kind::failed, .text = "one\ntwo\rthree"};
  EXPECT_EQ(encode(broken), "failed one two three\n");
  const std::string line = encode(
      ReaderLine{.kind = Kind::unread, .offset = UINT64_MAX, .text = std::string(5000, 'x')});
  EXPECT_LE(line.size(), kReaderLineMax);
  EXPECT_TRUE(decode_reader_line(without_newline(line)));
}

TEST(ReaderLines, WhatNoReaderSaysIsNothing) {
  for (const char* const line :
       {"", "ready", "ready ", "ready x", "ready -1", "ready 18446744073709551616", "sum 0",
        "sum 0 00112233445566778899aabbccddee", "sum 0 00112233445566778899aabbccddeeff00",
        "sum 0 0011223344556677889 aabbccddeeff", "sum x 00112233445566778899aabbccddeeff",
        "unread", "unread x y", "other 0 text", "Segmentation fault"}) {
    EXPECT_EQ(decode_reader_line(line), std::nullopt) << line;
  }
  EXPECT_EQ(decode_reader_line("failed " + std::string(kReaderLineMax, 'x')), std::nullopt);
  for (const char* const line : {"", "0", "0 ", "0 0", "0 -1", "x 1", "0 1 1", "0 1x"}) {
    EXPECT_EQ(decode_reader_request(line), std::nullopt) << line;
  }
}

}  // namespace
}  // namespace engine
