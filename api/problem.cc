// SPDX-License-Identifier: Apache-2.0
#include "api/problem.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/object.h"
#include "api/schemas.h"

namespace api {

int http_status(engine::RefusalKind kind) {
  switch (kind) {
    case engine::RefusalKind::invalid:
      return 400;
    case engine::RefusalKind::not_found:
      return 404;
    case engine::RefusalKind::conflict:
      return 409;
    case engine::RefusalKind::unavailable:
      return 503;
    case engine::RefusalKind::out_of_space:
      return 507;
    case engine::RefusalKind::failed:
      break;
  }
  return 500;
}

Problem problem_of(const engine::Refusal& refusal) {
  return {http_status(refusal.kind), refusal.code, refusal.error,
          refusal.details,           refusal.hint, refusal.backup_id};
}

std::string code_of(std::string_view error) {
  std::string code;
  for (const char c : error.substr(0, error.find(':'))) {
    if (c >= 'A' && c <= 'Z') {
      code += static_cast<char>(c - 'A' + 'a');
    } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      code += c;
    } else if (!code.empty() && code.back() != '_') {
      code += '_';
    }
  }
  while (code.ends_with('_')) code.pop_back();
  return code;
}

Problem not_found() {
  return {404, "", "not found", "", "GET /openapi.json describes every path.", ""};
}

Problem method_not_allowed() {
  return {405, "", "method not allowed", "", "The header Allow names the methods.", ""};
}

Problem unknown_parameter(std::string_view given, std::string_view meant) {
  return {400,
          "unknown_parameter",
          "unknown query parameter",
          fmt::format("unknown query parameter '{}'", given),
          fmt::format("Did you mean '{}'? GET /openapi.json describes the parameters.", meant),
          ""};
}

Problem too_many_listeners() {
  return {503,
          "too_many_listeners",
          "too many listen to events",
          "",
          "Close other pages and listeners, or ask with GET instead.",
          ""};
}

Problem tls_required() {
  return {400,
          "tls_required",
          "TLS is required here",
          "the request came without TLS",
          "Write https:// instead of http://.",
          ""};
}

Problem certificate_not_allowed() {
  return {403,
          "certificate_not_allowed",
          "the client's certificate is not allowed",
          "it has none of the names of --tls-allowed-name",
          "",
          ""};
}

Problem body_too_large() {
  return {413, "", "request body too large", "", "A body has at most 1 MiB.", ""};
}

Problem malformed_request(std::string details) {
  return {400, "", "malformed request", std::move(details), "Send HTTP/1.1.", ""};
}

Problem out_of_threads() {
  return {503,
          "",
          "server is out of threads",
          "",
          "Nothing was begun: ask again. If it lasts, raise TasksMax of the unit or ulimit -u.",
          ""};
}

Problem answer_is_late() {
  return {503, "", "answer is late", "", "The work may go on; ask for its state with GET.", ""};
}

namespace {

struct ShownProblem {
  const Problem& problem;
  std::string code;
  std::string_view path, timestamp;
};

// Readers of repositories look for it first.
Json success_of(const ShownProblem& shown) {
  return shown.path.starts_with("/api/v1/repositories") ? Json(false) : Json(nullptr);
}

std::string type_of(const ShownProblem& shown) {
  std::string dashed = shown.code;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  return "urn:varve:error:" + dashed;
}

const Object<ShownProblem>& problem_object() {
  using S = ShownProblem;
  static const Object<S> object(
      "Problem", "What every refusal and failure looks like, as application/problem+json.",
      {{"type", "string", "urn:varve:error: and the code with dashes", type_of},
       {"title", "string", "the same text as error", [](const S& s) { return s.problem.error; }},
       {"status", "integer", "HTTP status", [](const S& s) { return s.problem.status; }},
       {"detail", "string", "the same text as details",
        [](const S& s) { return s.problem.details; }},
       {"instance", "string", "request path", &S::path},
       {"code", "string", "stable machine word", &S::code},
       {"hint", "string", "what to do; may be empty", [](const S& s) { return s.problem.hint; }},
       {"error", "string", "what is wrong, in words that never change",
        [](const S& s) { return s.problem.error; }},
       {"details", "string", "cause; empty when there is none",
        [](const S& s) { return s.problem.details; }},
       {"timestamp", "time", "time of the answer", &S::timestamp},
       {"backup_id", "string?", "the job concerned",
        [](const S& s) { return s.problem.backup_id; }},
       {"success", "boolean?", "false; only of repository endpoints", success_of}});
  return object;
}

}  // namespace

std::vector<Schema> problem_schemas() { return schemas_of(problem_object()); }

Response to_response(const Problem& problem, std::string_view path, std::string_view timestamp) {
  const std::string code = problem.code.empty() ? code_of(problem.error) : problem.code;
  const Json body = problem_object().json({problem, code, path, timestamp});
  return {problem.status, "application/problem+json", text_of(body), {}};
}

}  // namespace api
