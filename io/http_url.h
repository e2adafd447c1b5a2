// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace io {

/// An address that is called by HTTP or HTTPS.
struct HttpUrl {
  bool tls = false;
  std::string host;          ///< a name or a number without brackets
  std::string port = "80";   ///< 1 to 65535
  std::string target = "/";  ///< path and query, as given

  /// Throws std::invalid_argument for anything but http(s)://host[:port][/path][?query][#…]. It
  /// says what is wrong, "it names no host", without the text: that may hold a secret.
  static HttpUrl parse(std::string_view text);

  /// "" or "/…" without a slash at the end, for what is called below it. Throws
  /// std::invalid_argument when there is a query.
  std::string base_path() const;
  /// As the header Host has it: without the usual port.
  std::string authority() const;
};

/// An address of any scheme as it may be shown: "nbd://user:…@host/" where a password stands.
std::string without_password(std::string_view address);

}  // namespace io
