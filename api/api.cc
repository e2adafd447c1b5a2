#include "api/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/match.h"
#include "api/site_guard.h"
#include "engine/values/time_text.h"

namespace api {
namespace {

constexpr const char* kMethods = "GET, POST, PUT, DELETE, OPTIONS";

// Takes the same time for every wrong token of one length.
bool same_secret(std::string_view given, std::string_view wanted) {
  if (given.size() != wanted.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i] ^ wanted[i]);
  }
  return difference == 0;
}

Problem unauthorized(std::string error) {
  return {401, "", std::move(error), "", "Send the header 'Authorization: Bearer <token>'.", ""};
}

// The old hub's own mounts; their readers are told what replaces them.
std::optional<Problem> gone(const Target& target) {
  const auto& segments = target.segments;
  if (segments.size() < 3 || segments[0] != "api" || segments[1] != "v1" ||
      segments[2] != "restore") {
    return std::nullopt;
  }
  return Problem{
      410,
      "gone",
      "restore endpoints are gone",
      "",
      "Every restore point is an NBD export: GET /api/v1/points names its URIs. `varve restore` "
      "copies one to a file, a device or another NBD server.",
      ""};
}

Problem failure_of(const Route& route, const std::string& cause) {
  Problem problem{500,   std::string(route.failure_code), std::string(route.failure),
                  cause, "Look at the log of varve.",     ""};
  if (problem.error.ends_with(": ")) problem.error += cause;
  return problem;
}

}  // namespace

Api::Api(engine::Engine& engine, Settings settings)
    : engine_(engine), settings_(std::move(settings)) {}

Response Api::problem_response(const Problem& problem, std::string_view target) const {
  return to_response(problem, Target(target).path, engine::to_rfc3339(settings_.now()));
}

const Route* Api::route_of(const Request& request) const {
  return match(all_routes(), request.method, Target(request.target).segments).route;
}

std::optional<Problem> Api::refusal_of_token(const Request& request) const {
  constexpr std::string_view kScheme = "Bearer ";
  const std::string_view header = request.authorization;
  if (header.empty()) return unauthorized("Missing authorization header");
  if (!header.starts_with(kScheme) || header.size() == kScheme.size()) {
    return unauthorized("Invalid authorization format");
  }
  if (!same_secret(header.substr(kScheme.size()), settings_.token)) {
    return unauthorized("Invalid or expired token");
  }
  return std::nullopt;
}

// A token comes from a program that was given it, never from a page; what may come without one must
// not come from a page either.
std::optional<Problem> Api::refusal_of(const Request& request, const Route* route) const {
  if (!settings_.token.empty()) {
    auto refusal = refusal_of_token(request);
    if (!refusal) return refusal_of_content_type(request);
    const bool is_open = route && route->open_on_loopback && request.peer_is_loopback;
    if (!is_open) return refusal;
  }
  auto refusal = refusal_of_site(request, settings_.host_names, settings_.cors_origins);
  if (refusal) return refusal;
  return refusal_of_content_type(request);
}

Response Api::run(const Route& route, const Call& call) const {
  try {
    return route.handler(call);
  } catch (const engine::Refusal& refusal) {
    return failed(problem_of(refusal), call.request);
  } catch (const std::exception& failure) {
    return failed(failure_of(route, failure.what()), call.request);
  }
}

Response Api::failed(const Problem& problem, const Request& request) const {
  if (problem.status == 500 && settings_.on_failure) {
    settings_.on_failure(fmt::format("{} {}: {}: {}", request.method, Target(request.target).path,
                                     problem.error, problem.details));
  }
  return problem_response(problem, request.target);
}

Response Api::answer(const Request& request, const Target& target) const {
  const Match found = match(all_routes(), request.method, target.segments);
  if (const auto refusal = refusal_of(request, found.route)) {
    Response response = problem_response(*refusal, request.target);
    if (refusal->status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (found.route) {
    return run(*found.route, {request, target, found.variables, engine_, settings_});
  }
  if (const auto problem = gone(target)) return problem_response(*problem, request.target);
  if (found.methods.empty()) return problem_response(not_found(), request.target);
  Response response = problem_response(method_not_allowed(), request.target);
  response.headers.emplace_back("Allow", fmt::format("{}", fmt::join(found.methods, ", ")));
  return response;
}

void Api::add_cors_headers(const Request& request, Response& response) const {
  const auto& allowed = settings_.cors_origins;
  const auto has = [&](std::string_view origin) {
    return std::find(allowed.begin(), allowed.end(), origin) != allowed.end();
  };
  if (has("*")) {
    response.headers.emplace_back("Access-Control-Allow-Origin", "*");
  } else {
    if (request.origin.empty() || !has(request.origin)) return;
    response.headers.emplace_back("Access-Control-Allow-Origin", request.origin);
    response.headers.emplace_back("Vary", "Origin");
  }
  response.headers.emplace_back("Access-Control-Allow-Methods", kMethods);
  response.headers.emplace_back("Access-Control-Allow-Headers", "Content-Type, Authorization");
}

Response Api::handle(const Request& request) const {
  const Target target(request.target);
  const bool preflight = request.method == "OPTIONS" && !settings_.cors_origins.empty();
  Response response = preflight ? Response{204, "", "", {}} : answer(request, target);
  add_cors_headers(request, response);
  return response;
}

}  // namespace api
