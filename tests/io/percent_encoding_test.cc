// SPDX-License-Identifier: Apache-2.0
#include "io/percent_encoding.h"

#include <gtest/gtest.h>

namespace io {
namespace {

TEST(PercentDecoded, DecodesOnceAndLeavesWhatIsNoEscape) {
  EXPECT_EQ(percent_decoded("a%20b%2Fc"), "a b/c");
  EXPECT_EQ(percent_decoded("100%2525"), "100%25");
  EXPECT_EQ(percent_decoded("%zz%4"), "%zz%4");
  EXPECT_EQ(percent_decoded("%"), "%");
  EXPECT_EQ(percent_decoded("a+b"), "a+b");
  EXPECT_EQ(percent_decoded("B%C3%BCro"), "Büro");
}

TEST(PercentEncoding, ComesBack) {
  EXPECT_EQ(percent_encoded("a b/c~%"), "a%20b%2Fc~%25");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(percent_decoded(percent_encoded(all)), all);
}

}  // namespace
}  // namespace io
