// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Request targets: path segments and query parameters, each decoded exactly once. Pure.
///
/// Nothing is refused: an escape that is none stays as it is written, and simply names nothing.
/// Spec: RFC 3986; in queries '+' is a space, as the existing client writes it.
namespace api {

/// ASCII letters only, as schemes and host names are compared.
std::string in_lower_case(std::string_view text);

class Query {
 public:
  Query() = default;
  /// `text` is what follows the '?'.
  explicit Query(std::string_view text);

  /// The first value given under `name`; "" when it is absent or empty, which mean the same.
  std::string get(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& all() const { return parameters_; }

 private:
  std::vector<std::pair<std::string, std::string>> parameters_;
};

struct Target {
  std::string path;                   ///< as sent, without the query
  std::vector<std::string> segments;  ///< between the slashes, decoded; "/a/b" gives a and b
  Query query;

  explicit Target(std::string_view target);
};

}  // namespace api
