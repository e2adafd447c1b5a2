// SPDX-License-Identifier: Apache-2.0
#include "io/utf8.h"

#include <cstdint>

namespace io {

size_t utf8_character_bytes(std::string_view text) {
  const auto at = [&](size_t index) { return static_cast<uint8_t>(text[index]); };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  size_t length = 0;
  uint8_t second_min = 0x80, second_max = 0xbf;
  if (first >= 0xc2 && first <= 0xdf) length = 2;
  if (first >= 0xe0 && first <= 0xef) length = 3;
  if (first >= 0xf0 && first <= 0xf4) length = 4;
  if (first == 0xe0) second_min = 0xa0;
  if (first == 0xed) second_max = 0x9f;
  if (first == 0xf0) second_min = 0x90;
  if (first == 0xf4) second_max = 0x8f;
  if (length == 0 || text.size() < length) return 0;
  if (at(1) < second_min || at(1) > second_max) return 0;
  for (size_t index = 2; index < length; ++index) {
    if (at(index) < 0x80 || at(index) > 0xbf) return 0;
  }
  return length;
}

}  // namespace io
