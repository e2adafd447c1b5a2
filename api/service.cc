#include <nlohmann/json.hpp>

#include "api/metrics.h"
#include "api/openapi.h"
#include "api/routes.h"

/// Health, readiness, metrics, the description of the API: docs/http-api.md, "The service itself".
namespace api {
namespace {

Response health(const Call& call) {
  const engine::HealthView health = call.engine.health();
  return json_response(200, {{"service", "varve"},
                             {"status", health.catalogue_open ? "healthy" : "unhealthy"},
                             {"timestamp", call.timestamp()},
                             {"version", call.settings.version},
                             {"database", health.catalogue_open ? "connected" : "disconnected"}});
}

Response livez(const Call&) { return json_response(200, {{"status", "alive"}}); }

Response readyz(const Call& call) {
  const engine::HealthView health = call.engine.health();
  Json body = {{"status", health.ready() ? "ready" : "not ready"}};
  if (!health.ready()) {
    body["checks"] = {{"catalogue", health.catalogue_open},
                      {"catalogue_writable", health.catalogue_writable},
                      {"recovery", health.recovered},
                      {"not_shutting_down", !health.shutting_down}};
  }
  if (!health.unavailable_repositories.empty()) {
    body["unavailable_repositories"] = health.unavailable_repositories;
  }
  return json_response(health.ready() ? 200 : 503, body);
}

Response metrics(const Call& call) {
  std::string text = prometheus_text(call.engine.metrics(), call.settings.version);
  return {200, "text/plain; version=0.0.4; charset=utf-8", std::move(text), {}};
}

Response openapi(const Call& call) {
  return json_response(200, openapi_document(all_routes(), call.settings.version));
}

}  // namespace

const std::vector<Route>& service_routes() {
  static const Route kHealth = {.method = "GET",
                                .pattern = "/health",
                                .handler = health,
                                .summary = "Whether varve and its catalogue work",
                                .answer = "Health",
                                .open_on_loopback = true,
                                .instant = true};
  static const Route kOpenapi = {.method = "GET",
                                 .pattern = "/openapi.json",
                                 .handler = openapi,
                                 .summary = "This document",
                                 .answer = "",
                                 .instant = true};
  static const std::vector<Route> routes = [] {
    std::vector<Route> made = {
        kHealth,
        {.method = "GET",
         .pattern = "/livez",
         .handler = livez,
         .summary = "200 while the process answers",
         .answer = "Alive",
         .open_on_loopback = true,
         .instant = true},
        {.method = "GET",
         .pattern = "/readyz",
         .handler = readyz,
         .summary = "200 when backups can be started, else 503",
         .answer = "Readiness",
         .open_on_loopback = true,
         .instant = true},
        {.method = "GET",
         .pattern = "/metrics",
         .handler = metrics,
         .summary = "Prometheus text",
         .answer = "",
         .failure = "failed to collect metrics"},
        kOpenapi,
        kHealth,
        kOpenapi,
    };
    made[5].pattern = "/api/v1/health";
    made[6].pattern = "/api/v1/openapi.json";
    return made;
  }();
  return routes;
}

}  // namespace api
