// SPDX-License-Identifier: Apache-2.0
#include "io/big_endian.h"

#include <gtest/gtest.h>

#include <array>

namespace io {
namespace {

TEST(BigEndian, FieldsComeBackInTheOrderTheyWerePut) {
  std::array<std::byte, 18> wire{};
  BigEndianWriter out(wire);
  out.put(uint8_t{1})
      .put(uint16_t{0x0203})
      .put(uint32_t{0x04050607})
      .put(uint64_t{0x08090a0b0c0d0e0f});
  out.put_text("xy").put_zeroes(1);
  EXPECT_EQ(out.written(), wire.size());
  for (int i = 0; i < 15; ++i) EXPECT_EQ(wire.at(i), static_cast<std::byte>(i + 1));
  BigEndianReader in(wire);
  EXPECT_EQ(in.take<uint8_t>(), 1);
  EXPECT_EQ(in.take<uint16_t>(), 0x0203);
  EXPECT_EQ(in.take<uint32_t>(), 0x04050607u);
  EXPECT_EQ(in.take<uint64_t>(), 0x08090a0b0c0d0e0fu);
  EXPECT_EQ(in.take_text(2), "xy");
  EXPECT_EQ(in.left(), 1u);
}

TEST(BigEndian, NothingIsReadOrWrittenPastTheEnd) {
  std::array<std::byte, 3> wire{};
  BigEndianReader in(wire);
  EXPECT_THROW(in.take<uint32_t>(), std::out_of_range);
  BigEndianWriter out(wire);
  EXPECT_THROW(out.put(uint32_t{1}), std::out_of_range);
}

}  // namespace
}  // namespace io
