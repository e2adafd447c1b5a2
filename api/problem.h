// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "api/request.h"
#include "engine/values/refusal.h"

/// The error object of every endpoint, application/problem+json: docs/http-api.md, "Errors".
/// Pure.
namespace api {

struct Problem {
  int status = 500;
  std::string code;   ///< "": made from `error`
  std::string error;  ///< exact text
  std::string details, hint, backup_id;
};

/// 400, 404, 409, 503, 507 or 500.
int http_status(engine::RefusalKind kind);
Problem problem_of(const engine::Refusal& refusal);

/// The fixed part of an error text, up to a ':', in lower case with '_' between words:
/// "Failed to list repositories: disk I/O error" gives failed_to_list_repositories.
std::string code_of(std::string_view error);

/// Refusals that the router and the server make themselves.
Problem not_found();
Problem method_not_allowed();
/// 400 for a query parameter that is none but looks like `meant`.
Problem unknown_parameter(std::string_view given, std::string_view meant);
Problem too_many_listeners();
/// Plain HTTP where TLS is required; a client certificate whose name gets nobody in.
Problem tls_required();
Problem certificate_not_allowed();
Problem body_too_large();
Problem malformed_request(std::string details);
/// No thread could be created for the request, so nothing was begun.
Problem out_of_threads();
/// The work goes on, or waits, and the answer is due now.
Problem answer_is_late();

/// `path` is the request's; those of repositories get "success":false, as their readers expect.
Response to_response(const Problem& problem, std::string_view path, std::string_view timestamp);

}  // namespace api
