// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

namespace io {

/// Bytes of the UTF-8 character at the front of `text`, which is not empty; 0 when it is none.
/// Refuses overlong forms, surrogates and what lies beyond U+10FFFF.
size_t utf8_character_bytes(std::string_view text);

}  // namespace io
