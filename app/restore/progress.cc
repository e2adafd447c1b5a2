// SPDX-License-Identifier: Apache-2.0
#include "app/restore/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/percent_encoding.h"

namespace app {

io::Task<uint64_t> RestoreProgress::read() {
  const auto there = co_await runtime_.files.status(path_, true);
  if (!there) co_return 0;
  const std::string text = co_await io::read_text(runtime_.files, path_);
  const auto record = nlohmann::json::parse(text, nullptr, false);
  const bool is_whole = record.is_object() && record.contains("source") &&
                        record["source"].is_string() && record.contains("size_bytes") &&
                        record["size_bytes"].is_number_unsigned() &&
                        record.contains("done_bytes") && record["done_bytes"].is_number_unsigned();
  if (!is_whole || record["source"] != source_name_ || record["size_bytes"] != size_) {
    throw TargetRefused(
        fmt::format("{} is of another restore ({}); remove it, or use --force without --resume to "
                    "begin anew",
                    path_, is_whole ? record["source"].get<std::string>() : "unreadable"));
  }
  co_return std::min(record["done_bytes"].get<uint64_t>(), size_);
}

io::Task<void> RestoreProgress::keep(uint64_t done) {
  const nlohmann::json record = {
      {"source", source_name_}, {"size_bytes", size_}, {"done_bytes", done}};
  co_await runtime_.files.make_directories(io::parent_path(path_));
  co_await io::replace_text(runtime_, path_, record.dump() + "\n");
}

io::Task<void> RestoreProgress::forget() {
  const auto there = co_await runtime_.files.status(path_, false);
  if (!there) co_return;
  co_await runtime_.files.remove(path_);
  co_await runtime_.files.sync_directory(io::parent_path(path_));
}

std::string RestoreProgress::path_for(const std::string& target) {
  const char* const state = std::getenv("XDG_STATE_HOME");
  const char* const home = std::getenv("HOME");
  std::string directory = "/var/tmp";
  if (home != nullptr && *home == '/') directory = std::string(home) + "/.local/state";
  if (state != nullptr && *state == '/') directory = state;
  return fmt::format("{}/varve/{}.state", directory, io::percent_encoded(target));
}

}  // namespace app
