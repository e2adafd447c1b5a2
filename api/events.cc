// SPDX-License-Identifier: Apache-2.0
#include "api/events.h"

#include <fmt/format.h>

#include "api/answers_backups.h"
#include "api/routes.h"

/// What runs, told while it changes: docs/http-api.md, "Events".
namespace api {
namespace {

Response events(const Call& call) {
  return {200, "text/event-stream", jobs_event(call.engine, call.settings.pid), {}};
}

}  // namespace

std::string jobs_event(engine::Engine& engine, int64_t pid) {
  engine::BackupFilter filter;
  filter.status = engine::ShownStatus::running;
  const engine::BackupList running = engine.list_backups(filter);
  return fmt::format("event: jobs\ndata: {}\n\n",
                     text_of(backup_list_object().json({running, pid})));
}

const std::vector<Route>& event_routes() {
  static const std::vector<Route> routes = {
      {.method = "GET",
       .pattern = "/api/v1/events",
       .operation = "listenToEvents",
       .scope = Scope::read,
       .handler = events,
       .summary = "Server-Sent Events: the backups that run, now and whenever they change",
       .answer = "",
       .failure = "failed to list backups",
       .goes_on = true},
  };
  return routes;
}

}  // namespace api
