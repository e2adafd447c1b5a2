// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

namespace io {

/// Address ranges, in which a client must lie or not. Immutable once made; any thread.
class Networks {
 public:
  /// Adds "192.0.2.0/24", "2001:db8::/32" or a single address. Throws std::invalid_argument with a
  /// sentence.
  void add(std::string_view text);

  bool empty() const { return networks_.empty(); }

  /// Whether a peer, as Socket::peer() names it, lies in one of them. Always true when none was
  /// added, and for Unix sockets, whose file has a mode. An IPv4 address matches in its IPv6 form
  /// too.
  bool contains(std::string_view peer) const;

 private:
  using Address = std::array<std::byte, 16>;  // IPv4 as ::ffff:a.b.c.d
  struct Network {
    Address base;
    unsigned bits;
  };
  static bool parse(std::string_view text, Address& into, bool& is_v4);

  std::vector<Network> networks_;
};

}  // namespace io
