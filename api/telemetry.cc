// SPDX-License-Identifier: Apache-2.0
#include "api/answers_backups.h"
#include "api/read_member.h"
#include "api/routes.h"
#include "api/schemas.h"

/// Progress in, history out: docs/http-api.md, "Telemetry".
namespace api {
namespace {

constexpr uint64_t kSamplesMax = 720;

std::optional<std::string> error_of(const InputJson& body) {
  const InputJson* error = member(body, "error");
  if (!error) return std::nullopt;
  const std::string message = text_member(*error, "message");
  return message.empty() ? "the client reported an error" : message;
}

struct Received {
  std::string timestamp;
};

const Object<Received>& received_object() {
  static const Object<Received> object(
      "TelemetryReceived", "",
      {{"status", "string:success", "", [](const Received&) { return "success"; }},
       {"message", "string", "",
        [](const Received&) { return "Telemetry received and processed"; }},
       {"timestamp", "time", "", &Received::timestamp}});
  return object;
}

Response record(const Call& call) {
  const InputJson body = call.body("Telemetry", "Invalid request body");
  engine::Telemetry report;
  report.status = text_member(body, "status");
  report.current_phase = text_member(body, "current_phase");
  report.bytes_transferred = count_member(body, "bytes_transferred");
  report.total_bytes = count_member(body, "total_bytes");
  report.transfer_speed_bps = count_member(body, "transfer_speed_bps");
  report.eta_seconds = count_member(body, "eta_seconds");
  report.progress_percent = number_member(body, "progress_percent");
  report.error = error_of(body);
  call.engine.record_telemetry(call.variable("job_id"), report);
  return json_response(200, received_object().json({call.timestamp()}));
}

Response history(const Call& call) {
  const uint64_t limit = call.query_number("limit", kSamplesMax).value_or(kSamplesMax);
  const auto history = call.engine.telemetry_history(call.variable("job_id"), limit);
  return json_response(200, telemetry_history_object().json(history));
}

}  // namespace

std::vector<Schema> telemetry_answers() {
  std::vector<Schema> schemas = telemetry_history_schemas();
  schemas.push_back(received_object().schema());
  return schemas;
}

const std::vector<Route>& telemetry_routes() {
  static const std::vector<Route> routes = {
      {.method = "POST",
       .pattern = "/api/v1/telemetry/{job_type}/{job_id}",
       .operation = "recordTelemetry",
       .scope = Scope::backup,
       .handler = record,
       .summary = "The client's progress",
       .answer = "TelemetryReceived",
       .body = "Telemetry",
       .failure = "failed to record telemetry",
       .open_on_loopback = true,
       .is_audited = false},
      {.method = "GET",
       .pattern = "/api/v1/telemetry/history/{job_id}",
       .operation = "getTelemetryHistory",
       .scope = Scope::read,
       .handler = history,
       .summary = "A backup's speed and progress over time",
       .answer = "TelemetryHistory",
       .query = {{"limit", "integer", "samples at most; 720 when left out"}},
       .failure = "failed to get telemetry history"},
  };
  return routes;
}

}  // namespace api
