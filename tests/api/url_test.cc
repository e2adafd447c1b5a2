// SPDX-License-Identifier: Apache-2.0
#include "api/url.h"

#include <gtest/gtest.h>

namespace {

using api::Query;
using api::Target;

TEST(QueryText, FirstValueWinsAndEmptyIsAbsent) {
  const Query query("a=1&b=x+y%2B&a=2&c&=d&e=f=g");
  EXPECT_EQ(query.get("a"), "1");
  EXPECT_EQ(query.get("b"), "x y+");
  EXPECT_EQ(query.get("c"), "");
  EXPECT_EQ(query.get("e"), "f=g");
  EXPECT_EQ(query.get("nothing"), "");
}

TEST(TargetText, IsPathSegmentsAndQuery) {
  const Target target("/api/v1/x%2Fy/?q=1#part");
  EXPECT_EQ(target.path, "/api/v1/x%2Fy/");
  EXPECT_EQ(target.segments, (std::vector<std::string>{"api", "v1", "x/y", ""}));
  EXPECT_EQ(target.query.get("q"), "1");
  EXPECT_TRUE(Target("").segments.empty());
  EXPECT_TRUE(Target("*").segments.empty());
  EXPECT_EQ(Target("/?a=b?c").query.get("a"), "b?c");
}

}  // namespace
