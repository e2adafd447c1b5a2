// SPDX-License-Identifier: Apache-2.0
#include "engine/values/json_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

namespace engine {

using Json = nlohmann::ordered_json;

namespace {

Json array_of(const std::vector<Damage>& damages) {
  Json array = Json::array();
  for (const Damage& damage : damages) {
    array.push_back({{"offset", damage.offset},
                     {"length", damage.length},
                     {"host_offset", damage.host_offset},
                     {"what", damage.what}});
  }
  return array;
}

std::vector<Damage> damages_of(const Json& array) {
  std::vector<Damage> damages;
  for (const Json& object : array) {
    damages.push_back({object.at("offset").get<uint64_t>(), object.at("length").get<uint64_t>(),
                       object.at("host_offset").get<uint64_t>(),
                       object.at("what").get<std::string>()});
  }
  return damages;
}

}  // namespace

std::string to_json(const Tags& tags) {
  Json object = Json::object();
  for (const auto& [key, value] : tags) object[key] = value;
  return object.dump();
}

Tags tags_from_json(std::string_view text) {
  try {
    return Json::parse(text).get<Tags>();
  } catch (const Json::exception& cause) {
    throw std::runtime_error(fmt::format("tags: {}", cause.what()));
  }
}

std::string to_json(const std::vector<Warning>& warnings) {
  Json array = Json::array();
  for (const Warning& warning : warnings) {
    Json object = Json::object();
    object["code"] = to_text(warning.code);
    object["disk_id"] = warning.disk_index ? Json(*warning.disk_index) : Json(nullptr);
    object["message"] = warning.message;
    array.push_back(std::move(object));
  }
  return array.dump();
}

std::vector<Warning> warnings_from_json(std::string_view text) {
  try {
    std::vector<Warning> warnings;
    for (const Json& object : Json::parse(text)) {
      const auto code = from_text<WarningCode>(object.at("code").get<std::string>());
      if (!code) continue;  // of a newer varve
      Warning warning{*code, std::nullopt, object.at("message").get<std::string>()};
      if (object.at("disk_id").is_number()) {
        warning.disk_index = object.at("disk_id").get<uint32_t>();
      }
      warnings.push_back(std::move(warning));
    }
    return warnings;
  } catch (const Json::exception& cause) {
    throw std::runtime_error(fmt::format("warnings: {}", cause.what()));
  }
}

std::string to_json(const std::vector<Damage>& damages) { return array_of(damages).dump(); }

std::vector<Damage> damages_from_json(std::string_view text) {
  try {
    return damages_of(Json::parse(text));
  } catch (const Json::exception& cause) {
    throw std::runtime_error(fmt::format("damages: {}", cause.what()));
  }
}

std::string to_json(const SecondReading& reading) {
  const Json object = {{"reader", reading.reader},
                       {"stored_bytes", reading.stored_bytes},
                       {"covered_bytes", reading.covered_bytes},
                       {"damaged_bytes", reading.damaged_bytes},
                       {"problem", reading.problem},
                       {"damaged", array_of(reading.damaged)}};
  return object.dump();
}

SecondReading second_reading_from_json(std::string_view text) {
  try {
    const Json object = Json::parse(text);
    return {.reader = object.at("reader"),
            .stored_bytes = object.at("stored_bytes"),
            .covered_bytes = object.at("covered_bytes"),
            .damaged_bytes = object.at("damaged_bytes"),
            .problem = object.at("problem"),
            .damaged = damages_of(object.at("damaged"))};
  } catch (const Json::exception& cause) {
    throw std::runtime_error(fmt::format("second reader: {}", cause.what()));
  }
}

}  // namespace engine
