// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/access.h"
#include "api/json.h"
#include "api/metrics.h"
#include "api/request.h"
#include "api/url.h"
#include "engine/engine.h"

namespace api {

/// What the API is told once, by the application.
struct Settings {
  std::string version;
  int64_t pid = 0;                                    ///< shown as qemu_nbd_pid to old readers
  std::shared_ptr<const TokenBook> tokens = nullptr;  ///< null: none are asked for
  std::vector<std::string> cors_origins;  ///< none: no CORS headers; "*" allows every origin
  std::vector<std::string> host_names;    ///< that HTTP clients may ask for, beside loopback's
  std::function<engine::Time()> now;      ///< for the timestamps of answers; thread-safe
  /// Told about every 500, for the log; may be empty. Thread-safe.
  std::function<void(std::string_view text)> on_failure;
  /// Takes each line of the audit log (api/audit.h); may be empty. Thread-safe.
  std::function<void(std::string_view line)> audit;
  /// What /metrics says of the process; may be empty. Thread-safe.
  std::function<ProcessNumbers()> process;
  std::shared_ptr<RequestCounts> requests = std::make_shared<RequestCounts>();
};

/// One request on its way through a handler.
///
/// Handlers throw engine::Refusal for what is wrong with the request, and let everything that the
/// engine throws pass: the router makes the problem document.
struct Call {
  const Request& request;
  const Target& target;
  const std::vector<std::pair<std::string_view, std::string>>& variables;
  engine::Engine& engine;
  const Settings& settings;

  /// The decoded path segment at {name}.
  const std::string& variable(std::string_view name) const;
  std::string query(std::string_view name) const { return target.query.get(name); }
  /// A non-negative integer of the query; nothing when absent. Throws the refusal "invalid <name>",
  /// code invalid_query.
  std::optional<uint64_t> query_number(std::string_view name, uint64_t maximum) const;
  /// The refusal for a query value that is none of its words.
  static engine::Refusal invalid_query(std::string_view name, std::string details = "");

  /// The body's members by the schema's types, null ones left out. Throws a refusal with the text
  /// `error` and code invalid_body; a text that ends in ": " is completed by the cause.
  InputJson body(std::string_view schema, std::string_view error) const;

  std::string timestamp() const;
};

Response json_response(int status, const Json& body);
/// The same, of what a POST has made: the header Location names where it is, below /api/v1.
Response created_response(int status, const Json& body, std::string_view collection,
                          std::string_view id);

}  // namespace api
