// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "api/access.h"
#include "api/audit.h"
#include "api/call.h"
#include "api/match.h"
#include "api/problem.h"
#include "api/request.h"
#include "api/routes.h"

namespace api {

/// The HTTP API without HTTP: a request in, its response out.
///
/// Invariant: whatever is sent, and whatever the engine throws, the answer is well formed, and
/// every error is a problem document. handle() blocks as long as the engine does, and may be
/// called on any number of threads at once. Spec: docs/http-api.md.
class Api {
 public:
  /// `engine` outlives this object.
  Api(engine::Engine& engine, Settings settings);

  Response handle(const Request& request) const;

  /// The route that handle() would take; nothing for a path or method that there is not.
  const Route* route_of(const Request& request) const;

  /// Why a request would be turned away now, whatever it asks for: an answer that goes on ends when
  /// its token is revoked.
  std::optional<Problem> refusal_of(const Request& request) const;

  /// The event `jobs` as it is sent (api/events.h). Throws what the engine throws; blocks with it.
  std::string jobs_event() const;

  engine::Time now() const { return settings_.now(); }

  /// An error that the server found before there was a whole request.
  Response problem_response(const Problem& problem, std::string_view target) const;

 private:
  void note(const Request& request, const Match& found, const Access& access,
            const Response& response) const;
  Response failed(const Problem& problem, const Request& request) const;
  Response run(const Route& route, const Call& call) const;
  Response answer(const Request& request, const Target& target) const;
  Response answer(const Request& request, const Target& target, const Match& found,
                  const Access& access) const;
  void add_cors_headers(const Request& request, Response& response) const;

  engine::Engine& engine_;
  Settings settings_;
  const std::unique_ptr<RefusalLines> refusal_lines_ = std::make_unique<RefusalLines>();
};

}  // namespace api
