// SPDX-License-Identifier: Apache-2.0
#include "app/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "app/options.h"
#include "app/tls_files.h"
#include "engine/values/digest.h"
#include "engine/values/time_text.h"
#include "io/log.h"
#include "io/owned_fd.h"

namespace app {
namespace {

constexpr size_t kNameMax = 64, kHexDigits = 64;
constexpr std::string_view kNote =
    "# Tokens of varve's HTTP API: name, scopes, SHA-256, when it was made.\n"
    "# Changed by `varve token add` and `varve token revoke`.\n";

UsageError cannot(std::string_view verb, const std::string& path) {
  return UsageError(fmt::format("{} {}: {}", verb, path, std::strerror(errno)));
}

/// What the audit log calls who has no token of the file (and api/access.cc, who has none at all).
constexpr std::string_view kTaken[] = {"api-token", "loopback", "anonymous", "certificate", "uid"};

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kNameMax && text.front() != '#' &&
         std::ranges::all_of(text, [](unsigned char c) {
           return (c < 0x80 && std::isalnum(c) != 0) || c == '.' || c == '_' || c == '-';
         });
}

bool is_digest(std::string_view text) {
  return text.size() == kHexDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string_view next_word(std::string_view& line, char separator) {
  const size_t end = std::min(line.find(separator), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

std::optional<StoredToken> parse_line(std::string_view line) {
  StoredToken token;
  token.name = next_word(line, ' ');
  std::string_view scopes = next_word(line, ' ');
  while (!scopes.empty()) {
    const auto scope = api::scope_of(next_word(scopes, ','));
    if (!scope) return std::nullopt;
    token.scopes.push_back(*scope);
  }
  token.sha256 = next_word(line, ' ');
  const auto created = engine::from_rfc3339(line);
  if (!is_name(token.name) || token.scopes.empty() || !is_digest(token.sha256) || !created) {
    return std::nullopt;
  }
  token.created_at = *created;
  return token;
}

std::string text_of_tokens(const std::vector<StoredToken>& tokens) {
  std::string text(kNote);
  for (const StoredToken& token : tokens) {
    std::string scopes;
    for (const api::Scope scope : token.scopes) {
      scopes += fmt::format("{}{}", scopes.empty() ? "" : ",", api::to_text(scope));
    }
    text += fmt::format("{} {} {} {}\n", token.name, scopes, token.sha256,
                        engine::to_rfc3339(token.created_at));
  }
  return text;
}

std::string new_token() {
  std::array<unsigned char, 32> bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    throw std::system_error(errno, std::generic_category(), "get random bytes");
  }
  std::string token = "varve_";
  for (const unsigned char byte : bytes) token += fmt::format("{:02x}", byte);
  return token;
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// Of the directory that the file lies in, so that two changes never meet, and no other file is
/// needed.
io::OwnedFd lock_directory_of(const std::string& path) {
  const std::string directory = directory_of(path);
  io::OwnedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::flock(fd.get(), LOCK_EX) != 0) throw cannot("lock", directory);
  return fd;
}

/// Who the file belongs to, or will: its reader is the server, its writer perhaps root.
void give_to_owner(int fd, int directory, const std::string& path) {
  if (::geteuid() != 0) return;
  struct stat owner {};
  if (::stat(path.c_str(), &owner) != 0 && ::fstat(directory, &owner) != 0) return;
  if (::fchown(fd, owner.st_uid, owner.st_gid) != 0) throw cannot("change the owner of", path);
}

void write_whole(const io::OwnedFd& directory, const std::string& path, const std::string& text) {
  const std::string made = path + ".new";
  ::unlink(made.c_str());  // of one that was killed
  const io::OwnedFd fd(::open(made.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) throw cannot("write", made);
  give_to_owner(fd.get(), directory.get(), path);
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(fd.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw cannot("write", made);
    done += static_cast<size_t>(count);
  }
  if (::fsync(fd.get()) != 0) throw cannot("write", made);
  if (::rename(made.c_str(), path.c_str()) != 0) throw cannot("replace", path);
  if (::fsync(directory.get()) != 0) throw cannot("write", directory_of(path));
}

std::string version_of_tokens(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return errno == ENOENT ? "" : "unreadable";
  return fmt::format("{} {} {:o} {}.{:09} {}.{:09}", status.st_ino, status.st_size, status.st_mode,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                     status.st_ctim.tv_nsec);
}

}  // namespace

std::vector<StoredToken> parse_tokens(const std::string& path, std::string_view text) {
  std::vector<StoredToken> tokens;
  for (unsigned number = 1; !text.empty(); ++number) {
    const std::string_view line = next_word(text, '\n');
    if (line.empty() || line.front() == '#') continue;
    auto token = parse_line(line);
    if (!token) {
      throw UsageError(fmt::format(
          "{}:{}: not a line of `varve token add` (NAME SCOPES SHA256 TIME)", path, number));
    }
    if (std::ranges::find(tokens, token->name, &StoredToken::name) != tokens.end()) {
      throw UsageError(fmt::format("{}:{}: \"{}\" is there twice", path, number, token->name));
    }
    tokens.push_back(std::move(*token));
  }
  return tokens;
}

std::vector<StoredToken> read_tokens(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return {};
  return parse_tokens(path, read_private_file(path, nullptr));
}

std::optional<std::string> add_token(const std::string& path, const std::string& name,
                                     const std::vector<api::Scope>& scopes, engine::Time now) {
  if (!is_name(name)) {
    throw UsageError(
        fmt::format("\"{}\" is no name for a token; take letters, digits and . _ -, at most {}",
                    name, kNameMax));
  }
  if (std::ranges::find(kTaken, name) != std::end(kTaken)) {
    throw UsageError(
        fmt::format("\"{}\" is what the audit log says of others; take another name", name));
  }
  const io::OwnedFd locked = lock_directory_of(path);
  std::vector<StoredToken> tokens = read_tokens(path);
  if (std::ranges::find(tokens, name, &StoredToken::name) != tokens.end()) return std::nullopt;
  std::string token = new_token();
  tokens.push_back({name, scopes, engine::to_hex(engine::sha256(token)), now});
  write_whole(locked, path, text_of_tokens(tokens));
  return token;
}

bool revoke_token(const std::string& path, const std::string& name) {
  const io::OwnedFd locked = lock_directory_of(path);
  std::vector<StoredToken> tokens = read_tokens(path);
  if (std::erase_if(tokens, [&](const StoredToken& token) { return token.name == name; }) == 0) {
    return false;
  }
  write_whole(locked, path, text_of_tokens(tokens));
  return true;
}

TokenFile::TokenFile(std::string path) : path_(std::move(path)) {
  version_ = version_of_tokens(path_);
  tokens_ = read_tokens(path_);
  in_use_ = !version_.empty();
}

void TokenFile::refresh() const {
  const std::string version = version_of_tokens(path_);
  if (version == version_ && !is_unread_) return;
  const bool is_news = version != version_;  // complained about once, and read until it can be
  version_ = version;
  is_unread_ = false;
  tokens_.clear();
  if (version.empty()) {
    io::log(io::LogLevel::error, "http: no token of {} is accepted: the file is gone", path_);
    return;
  }
  in_use_ = true;
  try {
    tokens_ = read_tokens(path_);
  } catch (const std::exception& trouble) {
    is_unread_ = true;
    if (!is_news) return;
    io::log(io::LogLevel::error, "http: no token is accepted: {}", trouble.what());
  }
}

void TokenFile::set_api_token(std::string_view token) {
  const std::lock_guard lock(mutex_);
  api_token_sha256_ = token.empty() ? "" : engine::to_hex(engine::sha256(token));
  in_use_ = in_use_ || !token.empty();
}

bool TokenFile::is_in_use() const {
  const std::lock_guard lock(mutex_);
  refresh();
  return in_use_;
}

std::optional<api::TokenHolder> TokenFile::find(std::string_view token) const {
  const std::string digest = engine::to_hex(engine::sha256(token));
  const std::lock_guard lock(mutex_);
  refresh();
  if (digest == api_token_sha256_) return api::TokenHolder{"api-token", {api::Scope::admin}};
  for (const StoredToken& known : tokens_) {
    if (known.sha256 == digest) return api::TokenHolder{known.name, known.scopes};
  }
  return std::nullopt;
}

}  // namespace app
