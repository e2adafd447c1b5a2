// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "app/exit_status.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "io/percent_encoding.h"

/// `varve repo`: where images are kept.
namespace app {
namespace {

std::string repo_target(const std::string& id) {
  return "/repositories/" + io::percent_encoded(id);
}

void declare_id(CLI::App& command, std::string& id) {
  command.add_option("ID", id, "the repository's id")->required();
}

/// The body of POST /repositories: a directory, HOST:/EXPORT of NFS, or //HOST/SHARE of CIFS.
nlohmann::json repository_of(const RepoAddOptions& options) {
  nlohmann::json body = {{"name", options.name}};
  if (!options.id.empty()) body["id"] = options.id;
  if (options.path.empty() == options.share.empty()) {
    throw UsageError("varve repo add: one of --path and --share is needed");
  }
  if (!options.path.empty()) {
    body["type"] = options.type.empty() ? "local" : options.type;
    body["config"] = {{"path", absolute_path(options.path)}};
    return body;
  }
  if (options.mount_point.empty()) {
    throw UsageError("varve repo add: --share needs --mount-point, where you have mounted it");
  }
  nlohmann::json config = {{"mount_point", absolute_path(options.mount_point)}};
  const bool is_cifs = options.share.starts_with("//");
  const size_t cut = is_cifs ? options.share.find('/', 2) : options.share.find(":/");
  if (cut == std::string::npos) {
    throw UsageError(fmt::format("--share {}: write HOST:/EXPORT of NFS, or //HOST/SHARE of CIFS",
                                 options.share));
  }
  config["server"] = is_cifs ? options.share.substr(2, cut - 2) : options.share.substr(0, cut);
  config[is_cifs ? "share_name" : "export_path"] = options.share.substr(cut + 1);
  body["type"] = options.type.empty() ? (is_cifs ? "cifs" : "nfs") : options.type;
  body["config"] = config;
  return body;
}

}  // namespace

void declare_repo_list(CLI::App& command, RepoListOptions& options) {
  declare_client(command, options);
}

int run_repo_list(const RepoListOptions& options) {
  const Client client(options);
  const nlohmann::json found = client.get("/repositories");
  const Table table = table_of(kRepositories, found.at("repositories"), client.style());
  print(client, found, table.empty() ? "there is no repository\n" : table.text());
  return kOk;
}

void declare_repo_show(CLI::App& command, RepoShowOptions& options) {
  declare_id(command, options.id);
  declare_client(command, options);
}

int run_repo_show(const RepoShowOptions& options) {
  const Client client(options);
  const nlohmann::json found = client.get(repo_target(options.id));
  print(client, found, details_text(kRepository, found.at("repository"), client.style()));
  return kOk;
}

void declare_repo_add(CLI::App& command, RepoAddOptions& options) {
  command.add_option("NAME", options.name, "a name of your choice, unique")->required();
  command.add_option("--path", options.path, "its directory, on the server's machine")
      ->type_name("DIR");
  command
      .add_option("--share", options.share,
                  "a share that you have mounted: HOST:/EXPORT of NFS, //HOST/SHARE of CIFS")
      ->type_name("SHARE");
  command.add_option("--mount-point", options.mount_point, "where the share is mounted")
      ->type_name("DIR");
  command.add_option("--id", options.id, "its id (default: made of type and time)")
      ->type_name("ID");
  command
      .add_option("--type", options.type,
                  "local, nfs, cifs or smb (default: as --path or --share look)")
      ->type_name("TYPE");
  declare_client(command, options);
  explain_exit(command, "varve mounts nothing itself.");
}

int run_repo_add(const RepoAddOptions& options) {
  const Client client(options);
  const nlohmann::json added = client.send("POST", "/repositories", repository_of(options));
  print(client, added, details_text(kRepository, added.at("repository"), client.style()));
  return kOk;
}

void declare_repo_test(CLI::App& command, RepoTestOptions& options) {
  declare_id(command, options.id);
  declare_client(command, options);
  explain_exit(command, "A file is written there, synced, read back and removed.");
}

int run_repo_test(const RepoTestOptions& options) {
  const Client client(options);
  const nlohmann::json test =
      client.send("POST", repo_target(options.id) + "/test", nlohmann::json::object());
  std::string text = details_text(kRepositoryTest, test, client.style());
  const nlohmann::json abilities = member_of(test, "capabilities");
  for (const auto& [name, ability] : abilities.items()) {
    const std::string consequence = ability.value("consequence", "");
    if (!consequence.empty()) text += fmt::format("without {}: {}\n", name, consequence);
  }
  print(client, test, text);
  return test.at("success") == true ? kOk : kFailed;
}

void declare_repo_remove(CLI::App& command, RepoRemoveOptions& options) {
  declare_id(command, options.id);
  declare_yes(command, options.yes);
  declare_client(command, options);
  explain_exit(command, "Only a repository without backups can be forgotten. Its files stay.");
}

int run_repo_remove(const RepoRemoveOptions& options) {
  const Client client(options);
  require_yes(options.yes, fmt::format("Forget repository '{}'?", printable(options.id)));
  const nlohmann::json done = client.remove(repo_target(options.id));
  print(client, done,
        fmt::format("repository '{}' is forgotten; its files stay\n", printable(options.id)));
  return kOk;
}

}  // namespace app
