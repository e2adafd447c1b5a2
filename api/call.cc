// SPDX-License-Identifier: Apache-2.0
#include "api/call.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "api/nesting.h"
#include "api/schema.h"
#include "engine/values/time_text.h"
#include "io/percent_encoding.h"

namespace api {
namespace {

engine::Refusal invalid_body(std::string_view error, const std::string& cause) {
  std::string text(error);
  if (text.ends_with(": ")) text += cause;
  return {engine::RefusalKind::invalid, "invalid_body", std::move(text), cause,
          "GET /openapi.json describes the body."};
}

// What the parser says, without its library's own code in front.
std::string parser_text(const InputJson::exception& failure) {
  const std::string_view text = failure.what();
  const size_t end = text.find("] ");
  return std::string(end == text.npos ? text : text.substr(end + 2));
}

}  // namespace

const std::string& Call::variable(std::string_view name) const {
  for (const auto& [key, value] : variables) {
    if (key == name) return value;
  }
  throw std::logic_error(fmt::format("the route has no variable {}", name));
}

std::optional<uint64_t> Call::query_number(std::string_view name, uint64_t maximum) const {
  const std::string text = query(name);
  if (text.empty()) return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number > maximum) {
    throw invalid_query(name, fmt::format("{} must be a number from 0 to {}", name, maximum));
  }
  return number;
}

engine::Refusal Call::invalid_query(std::string_view name, std::string details) {
  return {engine::RefusalKind::invalid, "invalid_query", fmt::format("invalid {}", name),
          std::move(details), "GET /openapi.json describes the parameters."};
}

InputJson Call::body(std::string_view schema, std::string_view error) const {
  if (is_nested_too_deeply(request.body)) {
    throw invalid_body(
        error, fmt::format("arrays and objects are nested more than {} levels deep", kNestingMax));
  }
  InputJson parsed;
  try {
    parsed = InputJson::parse(request.body);
  } catch (const InputJson::exception& failure) {
    throw invalid_body(error, parser_text(failure));
  }
  if (const auto mismatch = type_mismatch(parsed, *find_schema(schema))) {
    throw invalid_body(error, *mismatch);
  }
  return parsed;
}

std::string Call::timestamp() const { return engine::to_rfc3339(settings.now()); }

Response json_response(int status, const Json& body) {
  return {status, "application/json", text_of(body), {}};
}

Response created_response(int status, const Json& body, std::string_view collection,
                          std::string_view id) {
  Response response = json_response(status, body);
  response.headers.emplace_back("Location",
                                fmt::format("/api/v1/{}/{}", collection, io::percent_encoded(id)));
  return response;
}

}  // namespace api
