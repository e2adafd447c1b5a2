// SPDX-License-Identifier: Apache-2.0
#include "engine/values/names.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/values/digest.h"
#include "engine/values/layout.h"
#include "engine/values/time_text.h"

namespace engine {
namespace {

constexpr size_t kSafeCharactersMax = 40;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_harmless(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || is_digit(c) || c == '.' || c == '_' ||
         c == '-';
}

/// Rule 1: each run of other characters becomes one '_'.
std::string replace_runs(std::string_view name) {
  std::string result;
  bool in_run = false;
  for (const char c : name) {
    if (is_harmless(c)) {
      result.push_back(c);
    } else if (!in_run) {
      result.push_back('_');
    }
    in_run = !is_harmless(c);
  }
  return result;
}

/// Rule 2: no "disk<digit>" at the start or after '-', which the client would take for an index.
std::string hide_disk_numbers(std::string text) {
  static constexpr std::string_view kDisk = "disk";
  for (size_t at = 0; (at = text.find(kDisk, at)) != std::string::npos; at += kDisk.size()) {
    const size_t after = at + kDisk.size();
    if (after >= text.size() || !is_digit(text[after])) continue;
    if (at == 0) {
      text.insert(0, 1, '_');
      ++at;
    } else if (text[at - 1] == '-') {
      text[at - 1] = '_';
    }
  }
  return text;
}

/// Rule 3: a name starts neither hidden nor like an option.
std::string replace_leading(std::string text) {
  const size_t leading = text.find_first_not_of(".-");
  const size_t count = leading == std::string::npos ? text.size() : leading;
  if (count > 0) text.replace(0, count, "_");
  return text;
}

std::string harmless(std::string_view vm_name) {
  return replace_leading(hide_disk_numbers(replace_runs(vm_name)));
}

std::string with_digest(std::string text, std::string_view vm_name, size_t digits) {
  text.resize(std::min(text.size(), kSafeCharactersMax - 1 - digits));
  if (text.empty()) text = "vm";
  return text + '-' + to_hex(sha256(vm_name)).substr(0, digits);
}

std::string attempt_suffix(uint32_t attempt) {
  return attempt <= 1 ? std::string() : fmt::format("-{}", attempt);
}

}  // namespace

std::string safe_name(std::string_view vm_name) {
  std::string text = harmless(vm_name);
  if (!text.empty() && text == vm_name && text.size() <= kSafeCharactersMax) return text;
  return with_digest(std::move(text), vm_name, 6);
}

std::string safe_name_with_digest(std::string_view vm_name, size_t digits) {
  return with_digest(harmless(vm_name), vm_name, digits);
}

std::string job_name(std::string_view safe, Time created, uint32_t attempt) {
  return fmt::format("backup-{}-{}{}", safe, unix_seconds(created), attempt_suffix(attempt));
}

std::string export_name(std::string_view safe, Time created, uint32_t attempt,
                        uint32_t disk_index) {
  return fmt::format("{}-{}{}-disk{}", safe, unix_seconds(created), attempt_suffix(attempt),
                     disk_index);
}

std::string export_name(std::string_view safe, Time created, uint32_t attempt, uint32_t disk_index,
                        std::string_view secret) {
  constexpr size_t kNameCharactersMax = 64;
  const std::string tail = fmt::format("-{}{}-{}-disk{}", unix_seconds(created),
                                       attempt_suffix(attempt), secret, disk_index);
  return std::string(safe.substr(0, kNameCharactersMax - tail.size())) + tail;
}

std::string name_secret(io::Random& random) {
  constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";
  constexpr int kCharacters = 20, kCharactersOfOneNumber = 10, kBits = 5;
  std::string secret;
  uint64_t bits = 0;
  for (int index = 0; index < kCharacters; ++index) {
    if (index % kCharactersOfOneNumber == 0) bits = random.next();
    secret += kAlphabet[bits % kAlphabet.size()];
    bits >>= kBits;
  }
  return secret;
}

std::string image_name(std::string_view safe, Time created, uint32_t attempt, uint32_t disk_index) {
  return fmt::format("backup-{}-disk{}-{}{}", safe, disk_index, name_stamp(created),
                     attempt_suffix(attempt));
}

std::string restore_name(std::string_view safe, Time created, std::string_view secret) {
  return fmt::format("{}{}-{}-{}", kRestorePrefix, safe, unix_seconds(created), secret);
}

std::string context_name(std::string_view safe, Time registered) {
  return fmt::format("ctx-{}-{}", safe, name_stamp(registered));
}

std::string backup_context_name(std::string_view safe, Time created, uint32_t attempt) {
  return fmt::format("ctx-backup-{}-{}{}", safe, unix_seconds(created), attempt_suffix(attempt));
}

bool is_own_name(std::string_view name, std::string_view prefix) {
  constexpr size_t kNameBytesMax = 128;
  return name.size() > prefix.size() && name.size() <= kNameBytesMax && name.starts_with(prefix) &&
         std::all_of(name.begin(), name.end(), is_harmless);
}

std::string_view safe_name_of_context(std::string_view context_id) {
  static constexpr std::string_view kPrefix = kContextPrefix;
  static constexpr size_t kStampBytes = sizeof("-YYYYMMDD-HHMMSS") - 1;
  if (!context_id.starts_with(kPrefix) || context_id.size() <= kPrefix.size() + kStampBytes) {
    return {};
  }
  return context_id.substr(kPrefix.size(), context_id.size() - kPrefix.size() - kStampBytes);
}

std::string chain_name(std::string_view context_id, uint32_t disk_index,
                       std::string_view repository_id, uint32_t generation) {
  return fmt::format("chain-{}-disk{}-{}-g{}", context_id, disk_index, repository_id, generation);
}

std::string shown_chain_name(std::string_view context_id, uint32_t disk_index) {
  return fmt::format("{}-disk{}-chain", context_id, disk_index);
}

}  // namespace engine
