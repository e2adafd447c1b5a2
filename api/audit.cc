// SPDX-License-Identifier: Apache-2.0
#include "api/audit.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "api/object.h"
#include "io/percent_encoding.h"

namespace api {
namespace {

constexpr size_t kPathBytesMax = 512, kMethodMax = 32;
constexpr int64_t kRefusalsInARow = 100;

struct Entry {
  const Request& request;
  const Match& found;
  const Access& access;
  const Response& response;
  engine::Time at;
  uint64_t dropped;
};

std::string path_of(const Entry& entry) {
  return Target(entry.request.target).path.substr(0, kPathBytesMax);
}

/// What was made, else the last thing that the path names: a backup's id, say.
std::string object_of(const Entry& entry) {
  for (const auto& [name, value] : entry.response.headers) {
    if (name == "Location") return io::percent_decoded(value.substr(value.rfind('/') + 1));
  }
  const auto& variables = entry.found.variables;
  return variables.empty() ? "" : variables.back().second.substr(0, kPathBytesMax);
}

std::string code_of_answer(const Entry& entry) {
  if (entry.response.content_type != "application/problem+json") return "";
  const InputJson problem = InputJson::parse(entry.response.body, nullptr, false);
  return problem.is_object() ? problem.value("code", std::string()) : "";
}

const Object<Entry>& entry_object() {
  using E = Entry;
  static const Object<E> object(
      "AuditEntry", "One line of the audit log.",
      {{"time", "time", "of the answer", &E::at},
       {"who", "string",
        "the token's name; without one loopback, uid N, certificate NAME or anonymous",
        [](const E& e) { return e.access.who; }},
       {"address", "string?", "of the peer; none over the Unix socket",
        [](const E& e) { return e.request.peer_address; }},
       {"method", "string", "", [](const E& e) { return e.request.method.substr(0, kMethodMax); }},
       {"path", "string", "without its query", path_of},
       {"operation", "string?", "what was asked for, as /openapi.json names it",
        [](const E& e) { return e.found.route ? e.found.route->operation : ""; }},
       {"object", "string?", "id or name of what was made or changed", object_of},
       {"status", "integer", "of the answer", [](const E& e) { return e.response.status; }},
       {"code", "string?", "why it was refused or failed", code_of_answer},
       {"dropped", "integer?", "refusals before this one that were too many to get a line",
        [](const E& e) {
          return e.dropped > 0 ? std::optional<uint64_t>(e.dropped) : std::nullopt;
        }}});
  return object;
}

}  // namespace

bool only_reads(const Request& request) {
  return request.method == "GET" || request.method == "HEAD" || request.method == "OPTIONS";
}

std::optional<uint64_t> RefusalLines::take(engine::Time now) {
  const std::lock_guard lock(mutex_);
  if (!refilled_) left_ = kRefusalsInARow;
  // One a second. A clock that was set back refills nothing, and goes on from where it is.
  const int64_t passed = std::max<int64_t>(0, (now - refilled_.value_or(now)).count());
  left_ = std::min(kRefusalsInARow, left_ + passed);
  refilled_ = now;
  if (left_ == 0) {
    ++dropped_;
    return std::nullopt;
  }
  --left_;
  return std::exchange(dropped_, 0);
}

bool is_audited(const Request& request, const Match& found, const Access& access) {
  if (only_reads(request)) return false;
  if (access.refusal) return true;
  return found.route != nullptr && found.route->is_audited;
}

std::string audit_line(const Request& request, const Match& found, const Access& access,
                       const Response& response, engine::Time at, uint64_t dropped) {
  return text_of(entry_object().json({request, found, access, response, at, dropped}));
}

Schema audit_schema() { return entry_object().schema(); }

}  // namespace api
