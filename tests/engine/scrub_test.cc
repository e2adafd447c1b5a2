// SPDX-License-Identifier: Apache-2.0
#include "engine/scrub.h"

#include <gtest/gtest.h>

namespace engine {
namespace {

using Order = std::vector<std::string>;

Order order_of(std::initializer_list<const char*> due, const UnreadSince& unread) {
  std::vector<Point> points;
  for (const char* const id : due) points.push_back(Point{.image_id = id});
  Order ids;
  for (const Point& point : in_turn(std::move(points), unread)) ids.push_back(point.image_id);
  return ids;
}

TEST(Scrub, WhatCouldNotBeReadKeepsNothingElseFromItsTurn) {
  const io::SteadyTime then{}, later = then + std::chrono::minutes(1);
  EXPECT_EQ(order_of({"a", "b", "c"}, {}), (Order{"a", "b", "c"}));
  EXPECT_EQ(order_of({"a", "b", "c", "d"}, {{"a", then}, {"b", then}}),
            (Order{"c", "d", "a", "b"}));
  EXPECT_EQ(order_of({"a", "b", "c"}, {{"a", later}, {"b", then}}), (Order{"c", "b", "a"}))
      << "those too have their turns";
}

}  // namespace
}  // namespace engine
