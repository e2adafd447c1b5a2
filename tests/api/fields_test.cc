// SPDX-License-Identifier: Apache-2.0
#include "api/fields.h"

#include "api/spelling.h"
#include "api_fixture.h"

/// Header fields, and what somebody meant who wrote something else.
namespace api_tests {
namespace {

TEST(HttpDate, IsInEnglishAndInGreenwich) {
  EXPECT_EQ(api::http_date(sample_time()), "Wed, 08 Oct 2025 08:54:54 GMT");
  EXPECT_EQ(api::http_date(engine::Time{}), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(api::http_date(engine::Time{std::chrono::seconds(784111777)}),
            "Sun, 06 Nov 1994 08:49:37 GMT");  // RFC 9110's own example
}

TEST(EntityTag, IsOfTheBytes) {
  // printf abc | sha256sum
  EXPECT_EQ(api::entity_tag("abc"), "\"ba7816bf8f01cfea414140de5dae2223\"");
  EXPECT_NE(api::entity_tag("abc"), api::entity_tag("abd"));
}

TEST(EntityTag, IsFoundInAList) {
  const std::string tag = "\"x\"";
  for (const char* list : {"\"x\"", "W/\"x\"", "\"a\", \"x\"", "\"a\" ,W/\"x\" , \"b\"", "*"}) {
    EXPECT_TRUE(api::names_tag(list, tag)) << list;
  }
  for (const char* list : {"", "x", "\"xx\"", "\"a\",\"b\"", ",", "W/"}) {
    EXPECT_FALSE(api::names_tag(list, tag)) << list;
  }
}

TEST(Spelling, IsGuessedFromOtherSpellingsPartsAndSlips) {
  const std::vector<std::string_view> known = {"vm_name", "vm_context_id", "status", "limit"};
  const std::pair<const char*, const char*> meant[] = {
      {"VM_NAME", "vm_name"}, {"vmname", "vm_name"},
      {"vm", "vm_name"},      {"name", "vm_name"},
      {"limt", "limit"},      {"limti", "limit"},
      {"satus", "status"},    {"context_id", "vm_context_id"}};
  for (const auto& [given, name] : meant) EXPECT_EQ(api::likely_meant(given, known), name) << given;
  for (const char* given : {"", "v", "_", "x", "page", "token", "vm_path", "time", "lim"}) {
    EXPECT_EQ(api::likely_meant(given, known), std::nullopt) << given;
  }
  EXPECT_EQ(api::likely_meant(std::string(100'000, 'v'), known), std::nullopt);
  EXPECT_EQ(api::likely_meant("limit", {}), std::nullopt);
}

}  // namespace
}  // namespace api_tests
