// SPDX-License-Identifier: Apache-2.0
#include "engine/values/time_text.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace engine {
namespace {

TEST(TimeText, WritesUtcWithSecondPrecision) {
  EXPECT_EQ(to_rfc3339(from_unix_seconds(1759913694)), "2025-10-08T08:54:54Z");
  EXPECT_EQ(to_rfc3339(from_unix_seconds(0)), "1970-01-01T00:00:00Z");
  EXPECT_EQ(to_rfc3339(from_unix_seconds(951782400)), "2000-02-29T00:00:00Z");
  EXPECT_EQ(to_rfc3339(std::optional<Time>()), "");
  EXPECT_EQ(name_stamp(from_unix_seconds(1759913694)), "20251008-085454");
}

TEST(TimeText, ReadsWhatItWrites) {
  for (int64_t seconds = 0; seconds < 4'000'000'000; seconds += 12'345'678) {
    const Time time = from_unix_seconds(seconds);
    EXPECT_EQ(from_rfc3339(to_rfc3339(time)), time);
  }
}

TEST(TimeText, ReadsFractionsAndOffsets) {
  const Time time = from_unix_seconds(1759913694);
  EXPECT_EQ(from_rfc3339("2025-10-08T08:54:54.123456Z"), time);
  EXPECT_EQ(from_rfc3339("2025-10-08T10:54:54+02:00"), time);
  EXPECT_EQ(from_rfc3339("2025-10-08T03:24:54-05:30"), time);
}

TEST(TimeText, RefusesEverythingElse) {
  for (const char* text :
       {"", "2025-10-08", "2025-10-08 08:54:54", "2025-10-08T08:54:54", "2025-13-08T08:54:54Z",
        "2025-02-29T08:54:54Z", "2025-10-08T24:54:54Z", "2025-10-08T08:60:54Z",
        "2025-10-08T08:54:54.Z", "2025-10-08T08:54:54Zx", "2025-10-08T08:54:-4Z",
        "-025-10-08T08:54:54Z", "2025-10-08T08:54:54+25:00", "2025-10-08T08:54:54+0200"}) {
    EXPECT_EQ(from_rfc3339(text), std::nullopt) << text;
  }
}

TEST(TimeText, A33IgnoresTheTimeZoneOfTheProcess) {
  const char* before = std::getenv("TZ");
  const std::string saved = before != nullptr ? before : "";
  setenv("TZ", "Pacific/Kiritimati", 1);
  tzset();
  EXPECT_EQ(to_rfc3339(from_unix_seconds(1759913694)), "2025-10-08T08:54:54Z");
  EXPECT_EQ(from_rfc3339("2025-10-08T08:54:54Z"), from_unix_seconds(1759913694));
  EXPECT_EQ(name_stamp(from_unix_seconds(1759913694)), "20251008-085454");
  if (before != nullptr) {
    setenv("TZ", saved.c_str(), 1);
  } else {
    unsetenv("TZ");
  }
  tzset();
}

}  // namespace
}  // namespace engine
