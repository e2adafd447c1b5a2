#include "api/problem.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/json.h"

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

Problem body_too_large() {
  return {413, "", "request body too large", "", "A body has at most 1 MiB.", ""};
}

Problem malformed_request(std::string details) {
  return {400, "", "malformed request", std::move(details), "Send HTTP/1.1.", ""};
}

Problem answer_is_late() {
  return {503, "", "answer is late", "", "The work may go on; ask for its state with GET.", ""};
}

Response to_response(const Problem& problem, std::string_view path, std::string_view timestamp) {
  const std::string code = problem.code.empty() ? code_of(problem.error) : problem.code;
  std::string dashed = code;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  Json body = {
      {"type", "urn:varve:error:" + dashed},
      {"title", problem.error},
      {"status", problem.status},
      {"detail", problem.details},
      {"instance", path},
      {"code", code},
      {"hint", problem.hint},
      {"error", problem.error},
      {"details", problem.details},
      {"timestamp", timestamp},
  };
  if (!problem.backup_id.empty()) body["backup_id"] = problem.backup_id;
  if (path.starts_with("/api/v1/repositories")) body["success"] = false;
  return {problem.status, "application/problem+json", text_of(body), {}};
}

}  // namespace api
