// SPDX-License-Identifier: Apache-2.0
#include "engine/values/repository_config.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/values/refusal.h"

namespace engine {
namespace {

using Json = nlohmann::ordered_json;

struct ConfigMember {
  const char* name;
  enum class Need : uint8_t { optional, required, directory } need = Need::optional;
};
using Need = ConfigMember::Need;

// password_secret is left out on purpose: varve never mounts, so it has no use for it.
const std::vector<ConfigMember>& members_of(RepositoryType type) {
  static const std::vector<ConfigMember> local = {
      {"path", Need::directory}, {"auto_mount"}, {"mount_options"}};
  static const std::vector<ConfigMember> nfs = {{"server", Need::required},
                                                {"export_path", Need::required},
                                                {"mount_point", Need::directory},
                                                {"nfs_version"},
                                                {"mount_options"}};
  static const std::vector<ConfigMember> cifs = {{"server", Need::required},
                                                 {"share_name", Need::required},
                                                 {"mount_point", Need::directory},
                                                 {"username"},
                                                 {"domain"},
                                                 {"mount_options"}};
  if (type == RepositoryType::local) return local;
  return type == RepositoryType::nfs ? nfs : cifs;
}

// Without doubled and closing slashes, so that one directory has one name.
std::string plain(const std::string& path) {
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  return normal;
}

// Only such paths are taken that mean the same wherever they are read.
std::string path_fault(const std::string& path) {
  if (!path.starts_with('/')) return "must be an absolute path";
  if (path.find('\0') != path.npos) return "must not contain a zero byte";
  if ((path + '/').find("/../") != path.npos) return "must not contain '..'";
  return "";
}

}  // namespace

RepositoryConfig check_repository_config(RepositoryType type, std::string_view config_json) {
  const auto invalid = [type](std::string cause) {
    return refusals::repository_config_invalid(to_text(type), cause);
  };
  const Json given = Json::parse(config_json, nullptr, false);
  if (!given.is_object()) throw invalid("config must be an object");
  RepositoryConfig checked;
  Json kept = Json::object();
  for (const auto& [name, need] : members_of(type)) {
    const auto found = given.find(name);
    const bool absent = found == given.end() || found->is_null();
    if (need == Need::optional) {
      if (!absent) kept[name] = *found;
      continue;
    }
    if (absent) throw invalid(fmt::format("{} is required", name));
    if (!found->is_string()) throw invalid(fmt::format("{} must be a string", name));
    const std::string value = *found;
    if (value.empty()) throw invalid(fmt::format("{} is required", name));
    if (need == Need::directory) {
      const std::string fault = path_fault(value);
      if (!fault.empty()) throw invalid(fmt::format("{} {}", name, fault));
      checked.directory = plain(value);
    }
    kept[name] = value;
  }
  checked.json = kept.dump();
  return checked;
}

}  // namespace engine
