// SPDX-License-Identifier: Apache-2.0
#include "engine/values/names.h"
#include "engine/values/layout.h"

#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <set>

#include "engine/values/time_text.h"

namespace engine {
namespace {

constexpr Time kSecond = from_unix_seconds(1759913694);

struct Example {
  std::string vm_name, safe;
};

/// As in docs/jobs.md, "Names".
const std::vector<Example> kExamples = {
    {"pgtest1", "pgtest1"},
    {"Web Server 01", "Web_Server_01-2fd50c"},
    {"x-disk3-y", "x_disk3-y-5647bb"},
    {"disk3", "_disk3-e8e9e7"},
    {"Büro-Server", "B_ro-Server-c313e0"},
    {"データベース", "_-24be0b"},
    {std::string(80, 'a'), std::string(33, 'a') + "-0f45e8"},
};

TEST(Names, A22TheTableOfTheContractHolds) {
  for (const Example& example : kExamples) {
    const std::string safe = safe_name(example.vm_name);
    EXPECT_EQ(safe, example.safe);
    EXPECT_EQ(job_name(safe, kSecond), "backup-" + example.safe + "-1759913694");
    EXPECT_EQ(export_name(safe, kSecond, 1, 1), example.safe + "-1759913694-disk1");
  }
  EXPECT_EQ(job_name(safe_name(std::string(80, 'a')), kSecond).size(), 58u);
  EXPECT_EQ(export_name(safe_name(std::string(80, 'a')), kSecond, 1, 1).size(), 57u);
}

TEST(Names, LeadingDotsAndDashesBecomeOneUnderscore) {
  EXPECT_TRUE(safe_name("..a").starts_with("_a-"));
  EXPECT_TRUE(safe_name("-.-a").starts_with("_a-"));
  EXPECT_TRUE(safe_name("-").starts_with("_-"));
  EXPECT_TRUE(safe_name("--disk3").starts_with("__disk3-"));
}

TEST(Names, AnEmptyNameBecomesVm) { EXPECT_EQ(safe_name(""), "vm-e3b0c4"); }

TEST(Names, ALongerDigestTellsEqualNamesApart) {
  EXPECT_EQ(safe_name_with_digest("Web Server 01", 12).size(),
            std::string("Web_Server_01-").size() + 12);
  EXPECT_TRUE(safe_name_with_digest("Web Server 01", 12).starts_with("Web_Server_01-2fd50c"));
  EXPECT_EQ(safe_name_with_digest(std::string(80, 'a'), 12).substr(0, 28),
            std::string(27, 'a') + "-");
}

TEST(Names, OtherFormsAreThoseOfTheContract) {
  EXPECT_EQ(job_name("x", kSecond, 3), "backup-x-1759913694-3");
  EXPECT_EQ(export_name("x", kSecond, 3, 0), "x-1759913694-3-disk0");
  EXPECT_EQ(image_name("pgtest1", kSecond, 1, 0), "backup-pgtest1-disk0-20251008-085454");
  EXPECT_EQ(image_name("pgtest1", kSecond, 2, 1), "backup-pgtest1-disk1-20251008-085454-2");
  EXPECT_EQ(context_name("pgtest1", kSecond), "ctx-pgtest1-20251008-085454");
  EXPECT_EQ(backup_context_name("pgtest1", kSecond), "ctx-backup-pgtest1-1759913694");
  EXPECT_EQ(chain_name("ctx-a-20251008-085454", 1, "2", 3),
            "chain-ctx-a-20251008-085454-disk1-2-g3");
  EXPECT_EQ(shown_chain_name("ctx-a-20251008-085454", 1), "ctx-a-20251008-085454-disk1-chain");
  EXPECT_EQ(disk_link_name("pgtest1", 2000), "pgtest1-disk-2000");
  EXPECT_EQ(disk_directory("/r", "ctx-a-20251008-085454", 1), "/r/ctx-a-20251008-085454/disk-1");
}

TEST(Names, TheSafeNameIsFoundInTheContext) {
  EXPECT_EQ(safe_name_of_context(context_name("a-b.c", kSecond)), "a-b.c");
  EXPECT_EQ(safe_name_of_context("ctx-20251008-085454"), "");
  EXPECT_EQ(safe_name_of_context("vm-a-20251008-085454"), "");
}

/// Random UTF-8, rich in what the rules are about.
std::string random_name(std::mt19937& random) {
  static const std::vector<std::string> kPieces = {
      "disk", "-disk3-", "disk7", "-", ".", "_", " ", "0",  "9",  "a",   "Z",  "ü",     "デ",
      "😀",    "/",       "%",     "#", ",", ":", "?", "\\", "\"", "dis", "k1", "-disk", "backup-"};
  std::string name;
  const size_t pieces = 1 + random() % 20;
  for (size_t i = 0; i < pieces; ++i) name += kPieces[random() % kPieces.size()];
  return name;
}

TEST(Names, A22EveryNameIsSafeAndGivesTheClientTheRightDisk) {
  // Both patterns are the existing client's.
  const std::regex in_job_id("-disk([0-9]+)-"), at_end("disk([0-9]+)$");
  const std::regex allowed("[A-Za-z0-9._-]{1,64}");
  std::mt19937 random(20251008);
  for (int round = 0; round < 4000; ++round) {
    const std::string name = random_name(random);
    for (const std::string& safe :
         {safe_name(name), safe_name_with_digest(name, 12), safe_name_with_digest(name, 24)}) {
      ASSERT_LE(safe.size(), 40u) << name;
      ASSERT_TRUE(std::regex_match(safe, allowed)) << name << " -> " << safe;
      ASSERT_FALSE(safe.starts_with('.') || safe.starts_with('-')) << name << " -> " << safe;
      const uint32_t attempt = 1 + random() % 99;
      const std::string job_id = job_name(safe, kSecond, attempt);
      ASSERT_TRUE(job_id.starts_with("backup-"));
      ASSERT_TRUE(std::regex_match(job_id, allowed)) << job_id;
      ASSERT_FALSE(std::regex_search(job_id, in_job_id)) << name << " -> " << job_id;
      const uint32_t index = random() % 101;
      const std::string exported = export_name(safe, kSecond, attempt, index);
      std::smatch match;
      ASSERT_TRUE(std::regex_match(exported, allowed)) << exported;
      ASSERT_TRUE(std::regex_search(exported, match, at_end)) << exported;
      ASSERT_EQ(match[1].str(), std::to_string(index)) << exported;
    }
  }
}

TEST(Names, SecretsLeaveTheShapeOfExportNamesAsItIs) {
  class Counting final : public io::Random {
   public:
    uint64_t next() override { return chance_(); }

   private:
    std::mt19937_64 chance_{1};
  } numbers;
  const std::regex shape("([A-Za-z0-9._-]+)-1759913694(-[0-9]+)?-([a-z2-7]{20})-disk([0-9]+)");
  std::mt19937 random(9);
  std::set<std::string> secrets;
  for (int round = 0; round < 1000; ++round) {
    const std::string safe = safe_name(random_name(random)), secret = name_secret(numbers);
    secrets.insert(secret);
    const uint32_t index = random() % 101;
    const std::string name = export_name(safe, kSecond, 1 + random() % 99, index, secret);
    std::smatch match;
    ASSERT_LE(name.size(), 64u) << name;
    ASSERT_TRUE(std::regex_match(name, match, shape)) << name;
    ASSERT_TRUE(safe.starts_with(match[1].str())) << name;
    ASSERT_EQ(match[4].str(), std::to_string(index)) << name;
  }
  EXPECT_EQ(secrets.size(), 1000u);
}

TEST(Names, DifferentNamesStayDifferent) {
  std::mt19937 random(7);
  std::set<std::string> names, safe;
  while (names.size() < 5000) names.insert(random_name(random));
  for (const std::string& name : names) safe.insert(safe_name(name));
  // Six digits of SHA-256 may collide; VmCatalogue then takes twelve.
  EXPECT_GE(safe.size() + 3, names.size());
}

}  // namespace
}  // namespace engine
