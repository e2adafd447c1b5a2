// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/problem.h"
#include "api/request.h"

/// Who may ask for what: docs/http-access.md.
namespace api {

struct Route;
struct Settings;

/// What a token is good for. `backup` and `restore` include `read`, `admin` includes all of them.
enum class Scope : uint8_t { read, backup, restore, admin };
inline constexpr Scope kScopes[] = {Scope::read, Scope::backup, Scope::restore, Scope::admin};

std::string_view to_text(Scope scope);
std::optional<Scope> scope_of(std::string_view word);
/// Whether one of `held` is `needed` or includes it.
bool includes(const std::vector<Scope>& held, Scope needed);

struct TokenHolder {
  std::string name;  ///< as the operator gave it; for the audit log
  std::vector<Scope> scopes;
};

/// The tokens that are valid now. Any thread.
class TokenBook {
 public:
  virtual ~TokenBook() = default;
  /// Whether requests need a token: there are tokens, or there have been.
  virtual bool is_in_use() const = 0;
  /// Nobody for a token that is unknown or was revoked.
  virtual std::optional<TokenHolder> find(std::string_view token) const = 0;
};

struct Access {
  std::optional<Problem> refusal;
  /// The name of the token; without one "loopback", "uid 1000" (of a peer on the Unix socket),
  /// "certificate NAME" or "anonymous".
  std::string who;
  bool has_token = false;  ///< one that is valid, whatever its scopes
};

/// `route` may be null: what is refused before a path is looked up.
Access access_of(const Request& request, const Route* route, const Settings& settings);

}  // namespace api
