// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace io {

/// `text` as a part of a URI: letters, digits, "-._~" and the characters of `also_plain` as they are,
/// every other byte as %XX. Spec: RFC 3986, 2.1 to 2.3. Pure.
std::string percent_encoded(std::string_view text, std::string_view also_plain = "");

/// The bytes that %XX stand for; a % without two hexadecimal digits stays as it is. Pure.
std::string percent_decoded(std::string_view text);

}  // namespace io
