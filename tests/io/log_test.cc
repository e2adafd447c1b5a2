// SPDX-License-Identifier: Apache-2.0
#include "io/log.h"

#include "io/journal.h"

#include <gtest/gtest.h>

#include <string>

namespace io {
namespace {

std::string logged(LogFormat format, std::string_view text) {
  configure_log(format, LogLevel::info);
  ::testing::internal::CaptureStderr();
  log(LogLevel::warning, "{}", text);
  configure_log(LogFormat::text, LogLevel::info);
  return ::testing::internal::GetCapturedStderr();
}

/// The escaped text of a JSON line.
std::string message(std::string_view text) {
  const std::string line = logged(LogFormat::json, text);
  const std::string before = R"("level":"warning","message":")";
  const size_t at = line.find(before) + before.size();
  EXPECT_TRUE(line.ends_with("\"}\n")) << line;
  return line.substr(at, line.size() - 3 - at);
}

TEST(Log, AJsonLineIsOneLineOfValidJsonWhateverBytesItIsGiven) {
  EXPECT_EQ(message("plain \xc3\xa4 \xf0\x9f\x92\xbe"), "plain \xc3\xa4 \xf0\x9f\x92\xbe");
  EXPECT_EQ(message("a\"b\\c\nd"), R"(a\"b\\c\u000ad)");
  EXPECT_EQ(message("\xff"), R"(\ufffd)");
  EXPECT_EQ(message("cut \xe2\x82"), R"(cut \ufffd\ufffd)");
  EXPECT_EQ(message("overlong \xc0\xaf!"), R"(overlong \ufffd\ufffd!)");
  EXPECT_EQ(message("surrogate \xed\xa0\x80"), R"(surrogate \ufffd\ufffd\ufffd)");
}

TEST(Log, ATextCannotForgeASecondLine) {
  const std::string line = logged(LogFormat::text, "one\ntwo\r\x1b[31m");
  EXPECT_TRUE(line.ends_with("one two  [31m\n")) << line;
}

TEST(Log, AJsonLineNamesWhatTheEventIsAbout) {
  configure_log(LogFormat::json, LogLevel::info);
  ::testing::internal::CaptureStderr();
  log(LogLevel::error, {.job = "backup-1", .vm = "w\"eb", .disk = 0, .error = "no\nspace"}, "{}",
      "x");
  configure_log(LogFormat::text, LogLevel::info);
  const std::string line = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(line.ends_with(
      R"("message":"x","job":"backup-1","vm":"w\"eb","disk":0,"error":"no\u000aspace"})"
      "\n"))
      << line;
}

TEST(Log, AnEntryOfTheJournalHasTheSameAsFields) {
  EXPECT_EQ(
      journal_entry(LogLevel::error, {.job = "backup-1", .vm = "web", .disk = 3, .error = "a\nb"},
                    "it failed"),
      "MESSAGE=it failed\nPRIORITY=3\nSYSLOG_IDENTIFIER=varve\nVARVE_JOB=backup-1\n"
      "VARVE_VM=web\nVARVE_DISK=3\nVARVE_ERROR=a b\n");
  EXPECT_EQ(journal_entry(LogLevel::debug, {}, "x"),
            "MESSAGE=x\nPRIORITY=7\nSYSLOG_IDENTIFIER=varve\n");
}

TEST(Log, BytesAreSaidWithTheirUnit) {
  EXPECT_EQ(bytes_text(0), "0 bytes");
  EXPECT_EQ(bytes_text(1023), "1023 bytes");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text((uint64_t{1} << 30) - 1), "1.0 GiB");
  EXPECT_EQ(bytes_text(UINT64_MAX), "16.0 EiB");
}

TEST(Log, WhatIsBelowTheLeastLevelIsNotWritten) {
  configure_log(LogFormat::text, LogLevel::info);
  ::testing::internal::CaptureStderr();
  log(LogLevel::debug, "quiet");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace io
