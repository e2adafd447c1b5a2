// SPDX-License-Identifier: Apache-2.0
#include "api/read_setup.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/read_member.h"
#include "engine/values/refusal.h"
#include "engine/values/registration.h"
#include "engine/values/repository_config.h"

namespace api {
namespace {

namespace refusals = engine::refusals;

constexpr int64_t kIntervalSecondsMax = int64_t{10} * 365 * 24 * 60 * 60;

// An id stands in paths and file names.
bool is_usable_id(std::string_view id) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return id.size() <= 64 && id.find_first_not_of(kAllowed) == id.npos;
}

engine::Refusal invalid_member(const std::string& cause) {
  return {engine::RefusalKind::invalid, "invalid_body", "Invalid request body: " + cause, cause};
}

engine::CredentialsChange credentials_of(const InputJson& body) {
  using Kind = engine::CredentialsChange::Kind;
  engine::CredentialsChange change;
  const auto found = body.find("credentials");
  if (found == body.end()) return change;
  if (found->is_null()) {
    change.kind = Kind::remove;
    return change;
  }
  change.reference = text_member(*found, "ref");
  change.username = text_member(*found, "username");
  change.password = text_member(*found, "password");
  const bool inline_secret = !change.username.empty() && !change.password.empty();
  const bool nothing_else = change.username.empty() && change.password.empty();
  if (change.reference.empty() ? !inline_secret : !nothing_else) {
    throw engine::refusals::vm_context_invalid(
        "credentials must have either ref or username and password");
  }
  change.kind = inline_secret ? Kind::inline_secret : Kind::reference;
  return change;
}

engine::ExpectedIntervalChange expected_interval_of(const InputJson& body) {
  engine::ExpectedIntervalChange change;
  const auto found = body.find("expected_interval_seconds");
  if (found == body.end()) return change;
  change.is_given = true;
  if (found->is_null()) return change;
  const int64_t seconds = integer_member(body, "expected_interval_seconds").value_or(0);
  if (seconds < 0 || seconds > kIntervalSecondsMax) {
    throw engine::refusals::vm_context_invalid(fmt::format(
        "expected_interval_seconds must be 0 (none) to {} (ten years)", kIntervalSecondsMax));
  }
  change.seconds = static_cast<uint64_t>(seconds);
  return change;
}

engine::NewVmDisk disk_of(const InputJson& body) {
  engine::NewVmDisk disk;
  disk.disk_id = text_member(body, "disk_id");
  disk.capacity_bytes = count_member(body, "capacity_bytes");
  disk.unit_number = integer_member(body, "unit_number");
  disk.label = text_member(body, "label");
  disk.vmdk_path = text_member(body, "vmdk_path");
  disk.datastore = text_member(body, "datastore");
  return disk;
}

}  // namespace

engine::NewRepository repository_to_test(const InputJson& body) {
  engine::NewRepository request;
  const std::string type = text_member(body, "type");
  if (type.empty()) throw refusals::repository_type_missing();
  const auto known = engine::from_text<engine::RepositoryType>(type);
  if (!known) throw refusals::repository_type_unsupported(type);
  request.type = *known;
  const InputJson* config = member(body, "config");
  auto [json, directory] =
      engine::check_repository_config(request.type, config ? config->dump() : "{}");
  request.config_json = std::move(json);
  request.directory = std::move(directory);
  return request;
}

engine::NewRepository new_repository(const InputJson& body) {
  const std::string name = text_member(body, "name"), id = text_member(body, "id");
  if (name.empty()) throw refusals::repository_name_missing();
  engine::NewRepository request = repository_to_test(body);
  request.name = name;
  request.id = id;
  if (!is_usable_id(id)) {
    throw invalid_member("id must have at most 64 letters, digits, '.', '_' and '-'");
  }
  request.enabled = bool_member(body, "enabled").value_or(true);
  request.is_immutable = bool_member(body, "is_immutable").value_or(false);
  const auto days = integer_member(body, "min_retention_days").value_or(0);
  if (days < 0 || days > 36500) throw invalid_member("min_retention_days must be 0 to 36500");
  request.min_retention_days = days;
  return request;
}

engine::PutVmContext put_vm_context(const std::string& vm_name, const InputJson& body) {
  engine::PutVmContext request;
  request.vm_name = vm_name;
  request.vm_path = text_member(body, "vm_path");
  request.vcenter_host = text_member(body, "vcenter_host");
  request.credentials = credentials_of(body);
  if (const InputJson* disks = member(body, "disks")) {
    for (const InputJson& disk : *disks) request.disks.push_back(disk_of(disk));
  }
  request.vmware_vm_id = text_member(body, "vmware_vm_id");
  request.datacenter = text_member(body, "datacenter");
  request.power_state = text_member(body, "power_state");
  request.os_type = text_member(body, "os_type");
  request.expected_interval = expected_interval_of(body);
  check_registration(request);
  return request;
}

}  // namespace api
