// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "app/exit_status.h"
#include "app/operate/follow.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "app/verbs.h"
#include "io/percent_encoding.h"

/// `varve backup`, `watch` and `cancel`: what is under way.
namespace app {
namespace {

using JobJson = nlohmann::json;

/// The backup of that VM that runs.
std::string backup_of(const Client& client, const std::string& text) {
  for (const char* status : {"running", "pending"}) {  // pending: the node has not answered yet
    const std::string target =
        fmt::format("/backups?status={}&vm_name={}", status, io::percent_encoded(text));
    try {
      const JobJson found = client.get(target).at("backups");
      if (!found.empty()) return found.at(0).at("backup_id");
    } catch (const ServerRefused& refused) {
      if (refused.code() != "vm_not_found") throw;
      throw CommandFailed(kNotFound, fmt::format("neither a VM nor a backup is called '{}'; `varve "
                                                 "status` shows what runs",
                                                 text));
    }
  }
  throw CommandFailed(kNotFound, fmt::format("no backup of a VM '{}' is running", text));
}

/// What `varve backup` starts where nothing is said: an incremental on the newest point, else a
/// full.
JobJson request_of(const Client& client, const BackupOptions& options) {
  const JobJson points =
      client.get("/points?limit=1&vm_name=" + io::percent_encoded(options.vm_name)).at("points");
  std::string repository = options.repository_id;
  if (repository.empty()) {
    repository = points.empty() ? "1" : points.at(0).at("repository_id").get<std::string>();
  }
  const bool full = options.full || (points.empty() && !options.incremental);
  return {{"vm_name", options.vm_name},
          {"repository_id", repository},
          {"backup_type", full ? "full" : "incremental"}};
}

}  // namespace

void declare_backup(CLI::App& command, BackupOptions& options) {
  command.add_option("VM", options.vm_name, "its registered name")->required();
  auto* const full = command.add_flag("--full", options.full, "take the whole disks");
  command
      .add_flag("--incremental", options.incremental,
                "take what has changed (default where the VM has a restore point)")
      ->excludes(full);
  command.add_flag("--wait", options.wait, "show the progress, and end as the backup does");
  declare_patience(command, options.patience);
  declare_repository(command, options.repository_id, "that of its newest point, else 1");
  declare_client(command, options);
  explain_exit(command,
               "The node that `varve serve` calls (--node-url) reads a VMware VM and writes the\n"
               "backup. `varve pull` backs up disks that can be read from here.");
}

namespace {

/// Who knows other tools types `backup list`.
[[noreturn]] void refuse_verb(const std::string& word) {
  throw CommandFailed(kNotFound, fmt::format("no VM is called '{}'; did you mean `varve {}`?", word,
                                             find_verb(word)->name));
}

}  // namespace

int run_backup(const BackupOptions& options) {
  const Client client(options);
  JobJson started;
  try {
    started = client.send("POST", "/backups", request_of(client, options));
  } catch (const ServerRefused& refused) {
    if (refused.code() != "vm_not_found" || !find_verb(options.vm_name)) throw;
    refuse_verb(options.vm_name);
  }
  const std::string id = started.at("backup_id");
  if (options.wait) return follow(client, id, options.patience);
  print(client, started,
        fmt::format("{} of {} has started: {}\nvarve watch {} follows it\n",
                    started.at("backup_type").get<std::string>(), printable(options.vm_name), id,
                    id));
  return kOk;
}

void declare_watch(CLI::App& command, WatchOptions& options) {
  command
      .add_option("JOB", options.job,
                  "a VM whose backup is running, or the id of a backup, a verification, or a\n"
                  "restore that is being copied")
      ->required();
  declare_patience(command, options.patience);
  declare_client(command, options);
  explain_exit(
      command,
      "Shows the progress until it has ended: of a backup what was received, found to be zero,\n"
      "left out because the chain holds it (elided), and stored. With --json a line each\n"
      "second. A signal ends the watching, not what is watched. A server that is away for a\n"
      "while is asked again. Of a verification that has found damage the exit status is 13.");
}

int run_watch(const WatchOptions& options) {
  const Client client(options);
  const std::string id =
      is_task(client, options.job) ? options.job : backup_of(client, options.job);
  return follow(client, id, options.patience);
}

void declare_cancel(CLI::App& command, CancelOptions& options) {
  command.add_option("JOB", options.job, "a backup id, or a VM whose backup is running")
      ->required();
  command.add_option("--reason", options.reason, "kept with the backup")->type_name("TEXT");
  declare_client(command, options);
  explain_exit(command, "What the backup has written is removed.");
}

int run_cancel(const CancelOptions& options) {
  const Client client(options);
  const std::string id =
      client.is_backup(options.job) ? options.job : backup_of(client, options.job);
  const std::string reason = options.reason.empty() ? "varve cancel" : options.reason;
  const JobJson done =
      client.send("POST", "/backups/" + io::percent_encoded(id) + "/cancel", {{"reason", reason}});
  print(client, done, fmt::format("{} is cancelled\n", id));
  return kOk;
}

}  // namespace app
