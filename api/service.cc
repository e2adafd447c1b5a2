// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"
#include "api/object.h"
#include "api/openapi.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Health, readiness, metrics, the description of the API: docs/http-api.md, "The service itself".
namespace api {
namespace {

struct Health {
  bool healthy;
  std::string timestamp;
  const std::string& version;
};

const Object<Health>& health_object() {
  using H = Health;
  static const Object<H> object("Health", "",
                                {{"service", "string:varve", "", [](const H&) { return "varve"; }},
                                 {"status", "string:healthy,unhealthy", "",
                                  [](const H& h) { return h.healthy ? "healthy" : "unhealthy"; }},
                                 {"timestamp", "time", "", &H::timestamp},
                                 {"version", "string", "", [](const H& h) { return h.version; }},
                                 {"database", "string:connected,disconnected", "", [](const H& h) {
                                    return h.healthy ? "connected" : "disconnected";
                                  }}});
  return object;
}

Response health(const Call& call) {
  const bool healthy = call.engine.health().catalogue_open;
  return json_response(200,
                       health_object().json({healthy, call.timestamp(), call.settings.version}));
}

struct Alive {};

const Object<Alive>& alive_object() {
  static const Object<Alive> object(
      "Alive", "", {{"status", "string:alive", "", [](const Alive&) { return "alive"; }}});
  return object;
}

Response livez(const Call&) { return json_response(200, alive_object().json({})); }

Json unmet_checks(const engine::HealthView& health) {
  if (health.ready()) return nullptr;
  return {{"catalogue", health.catalogue_open},
          {"catalogue_writable", health.catalogue_writable},
          {"recovery", health.recovered},
          {"not_shutting_down", !health.shutting_down}};
}

const Object<engine::HealthView>& readiness_object() {
  using V = engine::HealthView;
  static const Object<V> object(
      "Readiness", "",
      {{"status", "string:ready,not ready", "",
        [](const V& v) { return v.ready() ? "ready" : "not ready"; }},
       {"checks", "{boolean}?", "which condition is not met, when not ready", unmet_checks},
       {"unavailable_repositories", "{string}?", "why they cannot be used, by id",
        &V::unavailable_repositories}});
  return object;
}

Response readyz(const Call& call) {
  const engine::HealthView health = call.engine.health();
  return json_response(health.ready() ? 200 : 503, readiness_object().json(health));
}

Response metrics(const Call& call) {
  ServiceNumbers numbers;
  numbers.version = call.settings.version;
  numbers.http_requests = call.settings.requests->counts();
  if (call.settings.process) numbers.process = call.settings.process();
  std::string text = prometheus_text(call.engine.metrics(), numbers);
  return {200, "text/plain; version=0.0.4; charset=utf-8", std::move(text), {}};
}

Response openapi(const Call& call) {
  return json_response(200, openapi_document(all_routes(), call.settings.version));
}

}  // namespace

std::vector<Schema> service_answers() {
  return schemas_of(health_object(), alive_object(), readiness_object());
}

const std::vector<Route>& service_routes() {
  static const Route kHealth = {.method = "GET",
                                .pattern = "/health",
                                .operation = "getHealth",
                                .scope = Scope::read,
                                .handler = health,
                                .summary = "Whether varve and its catalogue work",
                                .answer = "Health",
                                .open_on_loopback = true,
                                .instant = true};
  static const Route kOpenapi = {.method = "GET",
                                 .pattern = "/openapi.json",
                                 .operation = "getOpenApi",
                                 .scope = Scope::read,
                                 .handler = openapi,
                                 .summary = "This document",
                                 .answer = "",
                                 .instant = true};
  static const std::vector<Route> routes = [] {
    std::vector<Route> made = {
        kHealth,
        {.method = "GET",
         .pattern = "/livez",
         .operation = "getLiveness",
         .scope = Scope::read,
         .handler = livez,
         .summary = "200 while the process answers",
         .answer = "Alive",
         .open_on_loopback = true,
         .instant = true},
        {.method = "GET",
         .pattern = "/readyz",
         .operation = "getReadiness",
         .scope = Scope::read,
         .handler = readyz,
         .summary = "200 when backups can be started, else 503",
         .answer = "Readiness",
         .open_on_loopback = true,
         .instant = true},
        {.method = "GET",
         .pattern = "/metrics",
         .operation = "getMetrics",
         .scope = Scope::read,
         .handler = metrics,
         .summary = "Prometheus text",
         .answer = "",
         .failure = "failed to collect metrics"},
        kOpenapi,
        kHealth,
        kOpenapi,
    };
    made[5].pattern = "/api/v1/health";
    made[5].operation = "getHealthBelowApi";
    made[6].pattern = "/api/v1/openapi.json";
    made[6].operation = "getOpenApiBelowApi";
    return made;
  }();
  return routes;
}

}  // namespace api
