// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "api/access.h"
#include "api/call.h"

/// The table of endpoints. Each subject has its own part; the document /openapi.json is made from
/// the whole.
namespace api {

using Handler = Response (*)(const Call&);

struct Parameter {
  std::string_view name, type, about;
};

/// What may keep a handler waiting. Each has threads of its own, so that a node or a share that
/// does not answer delays no other request.
enum class WaitsFor : uint8_t { engine, node, storage };
inline constexpr size_t kWaitKinds = 3;

struct Route {
  std::string_view method, pattern;  ///< "/api/v1/backups/{backup_id}"; a GET answers HEAD too
  std::string_view operation = "";   ///< unique: the name that generated clients give it
  std::optional<Scope> scope = {};   ///< of the token that it needs; none: an administrator's
  Handler handler;
  std::string_view summary;
  int status = 200;            ///< of success
  std::string_view answer;     ///< schema; "" for text
  std::string_view body = "";  ///< schema; "" for none
  std::vector<Parameter> query = {};
  /// Text of the 500 for a failure that is no refusal; completed by the cause when it ends in ": ".
  std::string_view failure = "internal error";
  std::string_view failure_code = "";  ///< "": made from the text
  bool open_on_loopback = false;       ///< needs no token there: the existing client sends none
  bool instant = false;    ///< never waits for the engine; answered on the network thread
  bool unhurried = false;  ///< may take longer than 15 s
  WaitsFor waits_for = WaitsFor::engine;
  bool body_may_be_left_out = false;
  bool goes_on = false;    ///< events follow the answer until the connection ends
  bool is_audited = true;  ///< false: only its refusals are; for reports that change nothing
  /// A file of the page: static, so it needs no token anywhere, and no part of the described API.
  bool is_page = false;
};

const std::vector<Route>& backup_routes();
const std::vector<Route>& point_routes();
const std::vector<Route>& restore_routes();
const std::vector<Route>& verification_routes();
const std::vector<Route>& wanted_routes();
const std::vector<Route>& change_id_routes();
const std::vector<Route>& telemetry_routes();
const std::vector<Route>& repository_routes();
const std::vector<Route>& vm_context_routes();
const std::vector<Route>& nbd_state_routes();
const std::vector<Route>& event_routes();
const std::vector<Route>& service_routes();
const std::vector<Route>& page_routes();

/// All of them, subject by subject.
std::span<const Route> all_routes();

}  // namespace api
