// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "app/options.h"

namespace app {
namespace {

/// A whole number and the unit after it.
struct Measure {
  uint64_t count = 0;
  std::string_view unit;
};

Measure parse_measure(std::string_view text, std::string_view example) {
  Measure measure;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), measure.count);
  if (error != std::errc()) {
    throw UsageError(fmt::format("\"{}\" is not understood; write it like {}", text, example));
  }
  measure.unit = text.substr(static_cast<size_t>(end - text.data()));
  return measure;
}

template <class Unit>
struct NamedUnit {
  std::string_view name;
  Unit unit;
};

}  // namespace

io::Duration parse_duration(std::string_view text) {
  using namespace std::chrono;
  static constexpr std::array<NamedUnit<milliseconds>, 5> kUnits = {{{"ms", milliseconds(1)},
                                                                     {"s", seconds(1)},
                                                                     {"m", minutes(1)},
                                                                     {"h", hours(1)},
                                                                     {"d", hours(24)}}};
  const std::string_view example = "90s, 10m or 1h";
  const Measure measure = parse_measure(text, example);
  if (measure.count == 0 && measure.unit.empty()) return io::Duration::zero();
  constexpr uint64_t kYears = 100ull * 365 * 24 * 3600 * 1000;
  for (const auto& [name, unit] : kUnits) {
    if (name != measure.unit) continue;
    if (measure.count > kYears / static_cast<uint64_t>(unit.count())) break;
    return unit * static_cast<int64_t>(measure.count);
  }
  throw UsageError(fmt::format("\"{}\" is not a duration; write it like {}", text, example));
}

uint64_t parse_size(std::string_view text) {
  const std::string_view example = "1073741824, 64M, 10GiB or 10GB";
  const Measure measure = parse_measure(text, example);
  const auto wrong = [&] {
    return UsageError(fmt::format("\"{}\" is not a size; write it like {}", text, example));
  };
  std::string unit(measure.unit);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (unit.empty() || unit == "B") return measure.count;
  const size_t power = std::string_view("KMGTP").find(unit.front()) + 1;
  if (power == 0) throw wrong();
  const std::string_view rest = std::string_view(unit).substr(1);
  if (!rest.empty() && rest != "IB" && rest != "B") throw wrong();
  const uint64_t step = rest == "B" ? 1000 : 1024;
  uint64_t bytes = measure.count;
  for (size_t i = 0; i < power; ++i) {
    if (bytes > UINT64_MAX / step) throw wrong();
    bytes *= step;
  }
  return bytes;
}

uint64_t parse_commit_bytes(std::string_view text) {
  constexpr uint64_t kLeast = 1 << 20;
  constexpr uint64_t kMost = uint64_t{16} << 30;
  const uint64_t bytes = parse_size(text);
  if (bytes < kLeast || bytes > kMost) {
    throw UsageError(fmt::format("\"{}\" is not a size from 1M to 16G", text));
  }
  return bytes;
}

std::string absolute_path(const std::string& path) {
  std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  if (absolute.size() > 1 && absolute.ends_with('/')) absolute.pop_back();
  return absolute;
}

std::string default_state_directory() {
  // systemd names the directories of StateDirectory= here, the first one first.
  if (const char* const state = std::getenv("STATE_DIRECTORY"); state && *state == '/') {
    return std::string(state).substr(0, std::string_view(state).find(':'));
  }
  if (::geteuid() == 0) return "/var/lib/varve";
  if (const char* const data = std::getenv("XDG_DATA_HOME"); data != nullptr && *data == '/') {
    return std::string(data) + "/varve";
  }
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home == '/') {
    if (!std::filesystem::is_directory(home)) {  // of a system user, say
      throw UsageError(fmt::format(
          "the home directory {} does not exist; give --repository and --catalogue", home));
    }
    return std::string(home) + "/.local/share/varve";
  }
  throw UsageError("neither XDG_DATA_HOME nor HOME is set; give --repository and --catalogue");
}

}  // namespace app
