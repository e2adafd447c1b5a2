// SPDX-License-Identifier: Apache-2.0
#include "json_schema.h"

#include <algorithm>
#include <regex>
#include <stdexcept>

namespace api_tests {
namespace {

using Json = nlohmann::json;

bool has_type(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "null") return value.is_null();
  throw std::logic_error("unknown type " + type);
}

std::string object_fault(const Json& value, const Json& schema, const Json& document,
                         const std::string& where) {
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name)) return where + " lacks " + name.get<std::string>();
  }
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [name, member] : value.items()) {
    const std::string inside = where + "." + name;
    std::string fault;
    if (properties.contains(name)) {
      fault = schema_fault(member, properties[name], document, inside);
    } else if (schema.contains("additionalProperties")) {
      fault = schema_fault(member, schema["additionalProperties"], document, inside);
    } else if (!properties.empty()) {
      fault = inside + " is not in the schema";
    }
    if (!fault.empty()) return fault;
  }
  return "";
}

}  // namespace

std::string schema_fault(const Json& value, const Json& schema, const Json& document,
                         const std::string& where) {
  if (schema.contains("$ref")) {
    const std::string ref = schema["$ref"];
    return schema_fault(value, document.at(Json::json_pointer(ref.substr(1))), document, where);
  }
  if (schema.contains("anyOf")) {
    std::string fault;
    for (const Json& choice : schema["anyOf"]) {
      fault = schema_fault(value, choice, document, where);
      if (fault.empty()) return "";
    }
    return fault;
  }
  if (schema.contains("type")) {
    bool fits = false;
    const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
    for (const Json& type : types) fits |= has_type(value, type);
    if (!fits) return where + " is " + value.dump() + ", not " + schema["type"].dump();
  }
  if (schema.contains("enum")) {
    const Json& words = schema["enum"];
    if (std::find(words.begin(), words.end(), value) == words.end()) {
      return where + " is " + value.dump() + ", not one of " + words.dump();
    }
  }
  static const std::regex kTime("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z");
  if (schema.value("format", "") == "date-time" && value.is_string() &&
      !std::regex_match(value.get<std::string>(), kTime)) {
    return where + " is no UTC time";
  }
  if (value.is_object()) return object_fault(value, schema, document, where);
  if (value.is_array() && schema.contains("items")) {
    for (size_t i = 0; i < value.size(); ++i) {
      const std::string fault =
          schema_fault(value[i], schema["items"], document, where + "[" + std::to_string(i) + "]");
      if (!fault.empty()) return fault;
    }
  }
  return "";
}

}  // namespace api_tests
