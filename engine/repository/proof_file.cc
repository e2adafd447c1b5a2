// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/proof_file.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/repository/sidecar.h"
#include "engine/values/digest.h"
#include "engine/values/json_text.h"
#include "engine/values/time_text.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kProofFormat = 1;
constexpr std::string_view kEnd = ",\"sha256\":\"";

/// Texts hold file names, and those may be no UTF-8.
std::string text_of(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// `text` without its hash and what comes after that.
std::string_view hashed_part(std::string_view text) {
  const size_t end = text.rfind(kEnd);
  if (end == std::string_view::npos) throw FileTextError("it is not whole");
  const std::string_view before = text.substr(0, end);
  UNLESS_PLANTED(proof_without_checksum)
  if (text != fmt::format("{}{}{}\"}}\n", before, kEnd, to_hex(sha256(before)))) {
    throw FileTextError("its checksum does not fit");
  }
  return before;
}

ImageVerification proof_of(const Json& object) {
  if (object.at("format").get<uint32_t>() != kProofFormat) {
    throw FileTextError("its format is not known");
  }
  ImageVerification proof;
  proof.image_id = object.at("backup_id").get<std::string>();
  const auto verified_at = from_rfc3339(object.at("verified_at").get<std::string>());
  const auto result = from_text<VerificationResult>(object.at("result").get<std::string>());
  if (!verified_at || !result) throw FileTextError("it has no time and result");
  proof.verified_at = *verified_at;
  proof.result = *result;
  proof.data_bytes = object.at("data_bytes").get<uint64_t>();
  proof.zero_bytes = object.at("zero_bytes").get<uint64_t>();
  proof.damaged_bytes = object.at("damaged_bytes").get<uint64_t>();
  proof.problem = object.at("problem").get<std::string>();
  proof.damaged = damages_from_json(object.at("damaged").dump());
  return proof;
}

}  // namespace

std::string encode_proof_file(const ImageVerification& proof) {
  Json object;
  object["format"] = kProofFormat;
  object["backup_id"] = proof.image_id;
  object["verified_at"] = to_rfc3339(proof.verified_at);
  object["result"] = to_text(proof.result);
  object["data_bytes"] = proof.data_bytes;
  object["zero_bytes"] = proof.zero_bytes;
  object["damaged_bytes"] = proof.damaged_bytes;
  object["problem"] = proof.problem;
  object["damaged"] = Json::parse(to_json(proof.damaged));
  std::string text = text_of(object);
  text.pop_back();  // the brace, which stands behind the hash
  return fmt::format("{}{}{}\"}}\n", text, kEnd, to_hex(sha256(text)));
}

ImageVerification decode_proof_file(std::string_view text, std::string_view image_id) {
  try {
    const std::string_view hashed = hashed_part(text);
    ImageVerification proof = proof_of(Json::parse(std::string(hashed) + '}'));
    if (proof.image_id == image_id) return proof;
    throw FileTextError(fmt::format("it is the proof of {}", proof.image_id));
  } catch (const Json::exception& cause) {
    throw FileTextError(cause.what());
  }
}

}  // namespace engine
