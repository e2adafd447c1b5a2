// SPDX-License-Identifier: Apache-2.0
#include "io/networks.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <string>

#include "io/address.h"

namespace io {
namespace {

constexpr unsigned kBitsBeforeV4 = 96;

/// Whether the first `bits` bits are the same.
template <class Address>
bool agree(const Address& left, const Address& right, unsigned bits) {
  const size_t whole = bits / 8;
  if (std::memcmp(left.data(), right.data(), whole) != 0) return false;
  if (bits % 8 == 0) return true;
  const auto mask = static_cast<std::byte>(0xff << (8 - bits % 8));
  return (left[whole] & mask) == (right[whole] & mask);
}

}  // namespace

bool Networks::parse(std::string_view text, Address& into, bool& is_v4) {
  const std::string host(text);
  into = {};
  is_v4 = inet_pton(AF_INET, host.c_str(), into.data() + 12) == 1;
  if (is_v4) into[10] = into[11] = std::byte{0xff};
  return is_v4 || inet_pton(AF_INET6, host.c_str(), into.data()) == 1;
}

void Networks::add(std::string_view text) {
  const size_t slash = std::min(text.find('/'), text.size());
  Network network{};
  bool is_v4 = false;
  bool good = parse(text.substr(0, slash), network.base, is_v4);
  const unsigned bits_max = is_v4 ? 32 : 128;
  unsigned bits = bits_max;
  if (slash < text.size()) {
    const std::string_view digits = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    good = good && error == std::errc() && end == digits.data() + digits.size() && bits <= bits_max;
  }
  if (!good) {
    throw std::invalid_argument(fmt::format(
        "\"{}\" is not an address range; write it like 192.0.2.0/24 or 2001:db8::/32", text));
  }
  network.bits = bits + (is_v4 ? kBitsBeforeV4 : 0);
  networks_.push_back(network);
}

bool Networks::contains(std::string_view peer) const {
  if (networks_.empty() || peer == "unix") return true;
  Address address{};
  bool is_v4 = false;
  try {
    if (!parse(parse_host_port(peer).host, address, is_v4)) return false;
  } catch (const std::invalid_argument&) {
    return false;
  }
  return std::ranges::any_of(networks_, [&](const Network& network) {
    return agree(network.base, address, network.bits);
  });
}

}  // namespace io
