// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/access.h"
#include "engine/values/types.h"

/// The tokens of the HTTP API in a file of lines: name, scopes, SHA-256 of the token, when it was
/// made. The tokens themselves are nowhere. Spec: docs/http-access.md, "Tokens".
namespace app {

struct StoredToken {
  std::string name;  ///< letters, digits and "._-", at most 64; unique in the file
  std::vector<api::Scope> scopes;
  std::string sha256;  ///< of the token; 64 lower-case digits
  engine::Time created_at;
};

/// "nightly backup,restore 9f86… 2026-11-30T15:00:00Z" for each token; lines that begin with # are
/// notes. Throws UsageError that names `path` and the line.
std::vector<StoredToken> parse_tokens(const std::string& path, std::string_view text);

/// None when there is no such file. Throws UsageError, also when others than its owner may use it.
std::vector<StoredToken> read_tokens(const std::string& path);

/// Adds a token and returns it; it is known nowhere else afterwards. Nothing when there is one of
/// that name. The file is replaced as a whole, under a lock, and belongs to who owned it before, or
/// its directory. Throws UsageError for a name or a file that cannot be used.
std::optional<std::string> add_token(const std::string& path, const std::string& name,
                                     const std::vector<api::Scope>& scopes, engine::Time now);

/// False when there is none of that name. The file stays, so that requests still need a token.
bool revoke_token(const std::string& path, const std::string& name);

/// The tokens of a file that a server believes. It is read again when it has changed, so that a
/// token that is revoked is refused from the next request on. While it cannot be used, no token is
/// accepted; once there was a file, requests need a token even if it is gone. Beside them it may
/// believe the one of --api-token, which is called "api-token" and has every scope. Any thread.
class TokenFile : public api::TokenBook {
 public:
  /// The file need not exist. Throws UsageError when it does and cannot be used.
  explicit TokenFile(std::string path);

  /// From now on, in the place of the one before; "" for none: requests still need a token then.
  void set_api_token(std::string_view token);

  bool is_in_use() const override;
  std::optional<api::TokenHolder> find(std::string_view token) const override;

 private:
  void refresh() const;

  const std::string path_;
  mutable std::mutex mutex_;
  std::string api_token_sha256_;  // guarded by mutex_, as all below; "": there is none
  mutable std::vector<StoredToken> tokens_;
  mutable std::string version_;  // of the file that tokens_ come from; "": none
  mutable bool in_use_ = false;
  mutable bool is_unread_ = false;  // the file is there and could not be used
};

}  // namespace app
