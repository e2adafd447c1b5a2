#include "io/log.h"

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

TEST(Log, WhatIsBelowTheLeastLevelIsNotWritten) {
  configure_log(LogFormat::text, LogLevel::info);
  ::testing::internal::CaptureStderr();
  log(LogLevel::debug, "quiet");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace io
