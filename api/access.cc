// SPDX-License-Identifier: Apache-2.0
#include "api/access.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/call.h"
#include "api/routes.h"
#include "api/site_guard.h"

namespace api {
namespace {

constexpr std::string_view kScopeWords[] = {"read", "backup", "restore", "admin"};
static_assert(std::size(kScopeWords) == std::size(kScopes));

Problem unauthorized(std::string error) {
  return {401, "", std::move(error), "", "Send the header 'Authorization: Bearer <token>'.", ""};
}

Problem scope_missing(const TokenHolder& holder, Scope needed) {
  return {403,
          "scope_missing",
          "the token's scope does not allow this",
          fmt::format("the token '{}' has not the scope '{}'", holder.name, to_text(needed)),
          fmt::format("Use a token of `varve token add NAME --scope {}`.", to_text(needed)),
          ""};
}

/// Whose token the request carries; a refusal when it is nobody's.
std::optional<Problem> find_holder(const Request& request, const Settings& settings,
                                   TokenHolder& holder) {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view header = request.authorization;
  if (header.empty()) return unauthorized("Missing authorization header");
  if (!header.starts_with(kScheme) || header.size() == kScheme.size()) {
    return unauthorized("Invalid authorization format");
  }
  auto found = settings.tokens->find(header.substr(kScheme.size()));
  if (!found) return unauthorized("Invalid or expired token");
  holder = std::move(*found);
  return std::nullopt;
}

std::string peer_of(const Request& request) {
  if (request.peer_uid) return fmt::format("uid {}", *request.peer_uid);
  if (!request.peer_certificate.empty()) return "certificate " + request.peer_certificate;
  return request.peer_is_loopback ? "loopback" : "anonymous";
}

// A token comes from a program that was given it, never from a page; what may come without one must
// not come from a page either.
std::optional<Problem> refusal_without_token(const Request& request, const Settings& settings) {
  auto refusal = refusal_of_site(request, settings.host_names, settings.cors_origins);
  return refusal ? refusal : refusal_of_content_type(request);
}

}  // namespace

std::string_view to_text(Scope scope) { return kScopeWords[static_cast<size_t>(scope)]; }

std::optional<Scope> scope_of(std::string_view word) {
  for (const Scope scope : kScopes) {
    if (to_text(scope) == word) return scope;
  }
  return std::nullopt;
}

bool includes(const std::vector<Scope>& held, Scope needed) {
  return std::ranges::any_of(held, [needed](Scope scope) {
    return scope == needed || scope == Scope::admin || needed == Scope::read;
  });
}

Access access_of(const Request& request, const Route* route, const Settings& settings) {
  if (route && route->is_page) return {std::nullopt, peer_of(request)};
  const bool needs_token = settings.tokens && settings.tokens->is_in_use();
  const bool is_open = route && route->open_on_loopback && request.peer_is_loopback;
  if (!needs_token) return {refusal_without_token(request, settings), peer_of(request)};
  TokenHolder holder;
  auto refusal = find_holder(request, settings, holder);
  // A route without a scope is one that was forgotten: nobody but an administrator gets there.
  const Scope needed = route ? route->scope.value_or(Scope::admin) : Scope::read;
  if (!refusal && includes(holder.scopes, needed)) {
    return {refusal_of_content_type(request), holder.name, true};
  }
  if (is_open) {
    return {refusal_without_token(request, settings), refusal ? peer_of(request) : holder.name};
  }
  if (refusal) return {std::move(refusal), peer_of(request)};
  return {scope_missing(holder, needed), holder.name, true};
}

}  // namespace api
