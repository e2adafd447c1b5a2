// SPDX-License-Identifier: Apache-2.0
#include "api/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/events.h"
#include "api/fields.h"
#include "api/match.h"
#include "api/spelling.h"
#include "engine/values/time_text.h"

namespace api {
namespace {

constexpr const char* kMethods = "GET, POST, PUT, DELETE, OPTIONS";

// What answers GET answers HEAD; the server leaves the body out.
std::string_view asked_method(const Request& request) {
  return request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
}

std::string allowed_methods(const Match& found) {
  std::string allowed;
  for (const std::string_view method : found.methods) {
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", method);
    if (method == "GET") allowed += ", HEAD";
  }
  return allowed;
}

// A parameter that nobody knows is ignored, as old clients expect, unless it looks like one that
// was meant: a filter that is ignored answers another question. What the existing clients ask is
// never looked at.
std::optional<Problem> misspelt_parameter(const Route& route, const Query& query) {
  if (route.open_on_loopback) return std::nullopt;
  std::vector<std::string_view> known;
  for (const Parameter& parameter : route.query) known.push_back(parameter.name);
  for (const auto& [name, value] : query.all()) {
    if (std::ranges::find(known, name) != known.end()) continue;
    if (const auto meant = likely_meant(name, known)) return unknown_parameter(name, *meant);
  }
  return std::nullopt;
}

// What is polled gets a tag; 304 says that the client's copy is still right.
Response unless_known(Response response, const Route& route, const Request& request) {
  const bool has_tag = std::ranges::any_of(
      response.headers, [](const auto& header) { return header.first == "ETag"; });
  const bool is_polled = route.method == "GET" && !route.goes_on && !route.instant;
  if (!is_polled || has_tag || response.status != 200) return response;
  std::string tag = entity_tag(response.body);
  if (names_tag(request.if_none_match, tag)) response = {304, "", "", std::move(response.headers)};
  response.headers.emplace_back("ETag", std::move(tag));
  // A copy may be kept, and must be asked about before it is used.
  response.headers.emplace_back("Cache-Control", "private, no-cache");
  return response;
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
  return match(all_routes(), asked_method(request), Target(request.target).segments).route;
}

std::optional<Problem> Api::refusal_of(const Request& request) const {
  return access_of(request, route_of(request), settings_).refusal;
}

std::string Api::jobs_event() const { return api::jobs_event(engine_, settings_.pid); }

Response Api::run(const Route& route, const Call& call) const {
  try {
    return unless_known(route.handler(call), route, call.request);
  } catch (const engine::Refusal& refusal) {
    return failed(problem_of(refusal), call.request);
  } catch (const std::exception& failure) {
    return failed(failure_of(route, failure.what()), call.request);
  }
}

Response Api::failed(const Problem& problem, const Request& request) const {
  const bool is_of_a_job = !problem.backup_id.empty();  // whose failure the engine has logged
  if (problem.status == 500 && !is_of_a_job && settings_.on_failure) {
    settings_.on_failure(fmt::format("{} {}: {}: {}", request.method, Target(request.target).path,
                                     problem.error, problem.details));
  }
  return problem_response(problem, request.target);
}

Response Api::answer(const Request& request, const Target& target) const {
  const Match found = match(all_routes(), asked_method(request), target.segments);
  const Access access = access_of(request, found.route, settings_);
  Response response = answer(request, target, found, access);
  if (settings_.audit && is_audited(request, found, access)) {
    note(request, found, access, response);
  }
  return response;
}

void Api::note(const Request& request, const Match& found, const Access& access,
               const Response& response) const {
  const engine::Time now = settings_.now();
  const bool is_stranger = access.refusal && !access.has_token;
  const auto dropped = is_stranger ? refusal_lines_->take(now) : uint64_t{0};
  if (dropped) settings_.audit(audit_line(request, found, access, response, now, *dropped));
}

Response Api::answer(const Request& request, const Target& target, const Match& found,
                     const Access& access) const {
  if (access.refusal) {
    Response response = problem_response(*access.refusal, request.target);
    if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
    return response;
  }
  if (found.route) {
    if (const auto problem = misspelt_parameter(*found.route, target.query)) {
      return problem_response(*problem, request.target);
    }
    return run(*found.route, {request, target, found.variables, engine_, settings_});
  }
  if (const auto problem = gone(target)) return problem_response(*problem, request.target);
  if (found.methods.empty()) return problem_response(not_found(), request.target);
  Response response = problem_response(method_not_allowed(), request.target);
  response.headers.emplace_back("Allow", allowed_methods(found));
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
  const Route* const route = route_of(request);
  settings_.requests->note(route ? route->pattern : "", response.status);
  return response;
}

}  // namespace api
