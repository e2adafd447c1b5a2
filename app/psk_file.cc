// SPDX-License-Identifier: Apache-2.0
#include "app/psk_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "app/options.h"
#include "app/tls_files.h"
#include "io/log.h"

namespace app {
namespace {

/// What differs between two versions of a file.
std::string version_of(const struct stat& status) {
  return fmt::format("{} {} {}.{:09} {}.{:09}", status.st_ino, status.st_size,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                     status.st_ctim.tv_nsec);
}

std::optional<PskFile::Key> from_hex(std::string_view digits) {
  if (digits.empty() || digits.size() % 2 != 0) return std::nullopt;
  PskFile::Key key;
  for (size_t at = 0; at < digits.size(); at += 2) {
    unsigned byte = 0;
    const char* const last = digits.data() + at + 2;
    const auto [end, error] = std::from_chars(digits.data() + at, last, byte, 16);
    if (error != std::errc() || end != last) return std::nullopt;
    key.push_back(static_cast<std::byte>(byte));
  }
  return key;
}

}  // namespace

PskFile::PskFile(std::string path) : path_(std::move(path)) { read(); }

void PskFile::read() {
  struct stat status {};
  const std::string text = read_private_file(path_, &status);
  keys_ = parse(path_, text);
  version_ = version_of(status);
}

PskFile::Keys PskFile::parse(const std::string& path, std::string_view text) {
  Keys keys;
  for (unsigned number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const size_t colon = line.find(':');
    const std::string_view user = line.substr(0, std::min(colon, line.size()));
    const auto key =
        colon == std::string_view::npos ? std::nullopt : from_hex(line.substr(colon + 1));
    if (user.empty() || !key) {  // the line itself is a secret
      throw UsageError(fmt::format(
          "{}:{}: not a USER:HEXKEY line; make one with psktool -u USER -p FILE", path, number));
    }
    keys.insert_or_assign(std::string(user), *key);
  }
  return keys;
}

std::optional<PskFile::Key> PskFile::find(const std::string& user) {
  const std::lock_guard lock(mutex_);
  struct stat status {};
  const bool exists = ::stat(path_.c_str(), &status) == 0;
  const std::string version = exists ? version_of(status) : std::string();
  if (version != version_) {
    try {
      read();
    } catch (const UsageError& trouble) {
      io::log(io::LogLevel::error, "nbd: no pre-shared key is accepted: {}", trouble.what());
      keys_.clear();
      version_ = version;  // complained about once
    }
  }
  const auto found = keys_.find(user);
  if (found == keys_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string> PskFile::only_user() {
  const std::lock_guard guard(mutex_);
  if (keys_.size() != 1) return std::nullopt;
  return keys_.begin()->first;
}

}  // namespace app
