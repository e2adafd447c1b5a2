// SPDX-License-Identifier: Apache-2.0
#include "engine/values/types.h"

#include <gtest/gtest.h>

#include "engine/values/digest.h"
#include "engine/values/json_text.h"

namespace engine {
namespace {

template <typename Enum>
void expect_words(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    const Enum value = static_cast<Enum>(i);
    EXPECT_EQ(to_text(value), words[i]);
    EXPECT_EQ(from_text<Enum>(words[i]), value);
  }
  EXPECT_EQ(from_text<Enum>("nonsense"), std::nullopt);
  EXPECT_EQ(from_text<Enum>(""), std::nullopt);
}

TEST(Types, WordsAreThoseOfTheContractBothWays) {
  expect_words<JobState>(
      {"preparing", "running", "finalizing", "completed", "failed", "cancelled"});
  expect_words<DiskState>({"pending", "transferring", "sealing", "sealed", "completed", "failed"});
  expect_words<ShownStatus>({"pending", "running", "completed", "failed", "cancelled"});
  expect_words<BackupType>({"full", "incremental", "differential"});
  expect_words<RepositoryType>({"local", "nfs", "cifs", "smb"});
  expect_words<WarningCode>({"sampled_zeroes", "full_not_covered", "change_tracking_reset",
                             "change_id_unusable", "disk_added", "disk_shrunk", "long_chain",
                             "encrypted", "entropy_jump", "wrong_disk", "layout_changed"});
  expect_words<SampleSource>({"client", "server"});
  expect_words<CredentialsRef::Kind>({"none", "reference", "inline"});
}

TEST(Types, StatesAreShownCoarsely) {
  const std::vector<std::string> jobs = {"pending",   "running", "running",
                                         "completed", "failed",  "cancelled"};
  const std::vector<std::string> disks = {"pending",   "running",   "running",
                                          "completed", "completed", "failed"};
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(to_text(shown_status(static_cast<JobState>(i))), jobs[i]);
    EXPECT_EQ(to_text(shown_status(static_cast<DiskState>(i))), disks[i]);
    EXPECT_EQ(is_active(static_cast<JobState>(i)), i < 3);
  }
}

TEST(Types, AChangeIdIsUsableWithExactlyOneSlash) {
  EXPECT_TRUE(change_id_is_usable("52 66 8c 2d a7 c5 c5 68-c5 d2 8d 04 79 f5 fd 7d/5531"));
  EXPECT_FALSE(change_id_is_usable(""));
  EXPECT_FALSE(change_id_is_usable("abc"));
  EXPECT_FALSE(change_id_is_usable("a/b/c"));
  EXPECT_EQ(change_id_uuid("52 66/5531"), "52 66");
}

TEST(Types, ADiskIdHoldsItsKey) {
  EXPECT_EQ(vmware_disk_key("disk-2016"), 2016u);
  EXPECT_EQ(vmware_disk_key("disk-0"), 0u);
  EXPECT_EQ(vmware_disk_key("disk-999999999"), 999999999u);
  for (const char* text : {"", "disk-", "disk-x", "disk--1", "disk-1234567890", "2000", "Disk-1",
                           "disk-2000 ", "disk-+1"}) {
    EXPECT_EQ(vmware_disk_key(text), std::nullopt) << text;
  }
  EXPECT_EQ(vmware_disk_id(2016), "disk-2016");
}

TEST(Types, TheInventoryNameIsTheLastPartOfThePath) {
  EXPECT_EQ(inventory_name("/DC1/vm/pgtest1"), "pgtest1");
  EXPECT_EQ(inventory_name("pgtest1"), "pgtest1");
}

TEST(Digest, IsSha256) {
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(JsonText, TagsAndWarningsComeBack) {
  const Tags tags = {{"b", "2"}, {"a", "\"ü\n"}};
  EXPECT_EQ(to_json(tags), "{\"a\":\"\\\"ü\\n\",\"b\":\"2\"}");
  EXPECT_EQ(tags_from_json(to_json(tags)), tags);
  const std::vector<Warning> warnings = {{WarningCode::disk_added, 1, "one"},
                                         {WarningCode::sampled_zeroes, std::nullopt, "two"}};
  EXPECT_EQ(warnings_from_json(to_json(warnings)), warnings);
  EXPECT_EQ(to_json(warnings), R"([{"code":"disk_added","disk_id":1,"message":"one"},)"
                               R"({"code":"sampled_zeroes","disk_id":null,"message":"two"}])");
}

TEST(JsonText, OtherTextsAreRefused) {
  EXPECT_THROW(tags_from_json("[1]"), std::runtime_error);
  EXPECT_THROW(tags_from_json("{"), std::runtime_error);
  EXPECT_THROW(warnings_from_json(R"([{"code":1}])"), std::runtime_error);
}

}  // namespace
}  // namespace engine
