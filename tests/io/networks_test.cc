// SPDX-License-Identifier: Apache-2.0
#include "io/networks.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace io {
namespace {

TEST(Networks, WithoutAnyEverybodyIsIn) { EXPECT_TRUE(Networks().contains("198.51.100.7:1234")); }

TEST(Networks, HoldTheAddressesOfTheirRanges) {
  Networks networks;
  networks.add("192.0.2.0/25");
  networks.add("2001:db8:0:1::/63");
  networks.add("203.0.113.9");
  EXPECT_TRUE(networks.contains("192.0.2.0:1"));
  EXPECT_TRUE(networks.contains("192.0.2.127:1"));
  EXPECT_FALSE(networks.contains("192.0.2.128:1"));
  EXPECT_TRUE(networks.contains("[2001:db8::5]:1"));
  EXPECT_TRUE(networks.contains("[2001:db8:0:1:ffff::]:1"));
  EXPECT_FALSE(networks.contains("[2001:db8:0:2::]:1"));
  EXPECT_TRUE(networks.contains("203.0.113.9:1"));
  EXPECT_FALSE(networks.contains("203.0.113.8:1"));
  EXPECT_FALSE(networks.contains("no address"));
}

TEST(Networks, AnIpv4AddressInItsIpv6FormIsTheSame) {
  Networks networks;
  networks.add("192.0.2.0/24");
  EXPECT_TRUE(networks.contains("[::ffff:192.0.2.7]:1"));
  EXPECT_FALSE(networks.contains("[::ffff:192.0.3.7]:1"));
}

TEST(Networks, AUnixSocketHasAModeOfItsOwn) {
  Networks networks;
  networks.add("192.0.2.0/24");
  EXPECT_TRUE(networks.contains("unix"));
}

TEST(Networks, TheWidestRangeHoldsAllOfItsFamily) {
  Networks networks;
  networks.add("0.0.0.0/0");
  EXPECT_TRUE(networks.contains("8.8.8.8:1"));
  EXPECT_FALSE(networks.contains("[2001:db8::]:1"));
}

TEST(Networks, WhatIsNoRangeIsRefused) {
  Networks networks;
  for (const char* text : {"", "192.0.2.0/33", "::/129", "192.0.2/24", "192.0.2.0/", "host/8",
                           "192.0.2.0/-1", "192.0.2.0/8x"}) {
    EXPECT_THROW(networks.add(text), std::invalid_argument) << text;
  }
  EXPECT_TRUE(networks.empty());
}

}  // namespace
}  // namespace io
