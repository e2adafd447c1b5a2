// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "app/exit_status.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "io/counted.h"

/// `varve status`: the server at one glance.
namespace app {
namespace {

using StatusJson = nlohmann::json;

/// Why backups cannot be started, as the server says it; "" when they can.
std::string unready_text(const StatusJson& readiness) {
  if (!readiness.is_object()) return "it does not say whether it is ready";
  if (readiness.value("status", "") == "ready") return "";
  std::string text;
  const StatusJson checks = member_of(readiness, "checks");
  for (const auto& [check, met] : checks.items()) {
    if (met == false) text += (text.empty() ? "" : ", ") + check;
  }
  return text.empty() ? "not ready" : "not ready: " + printable(text);
}

}  // namespace

void declare_status(CLI::App& command, StatusOptions& options) {
  declare_client(command, options);
  explain_exit(command,
               "What runs, the repositories and their space. It fails when no backup could be\n"
               "started now.");
}

int run_status(const StatusOptions& options) {
  const Client client(options);
  const Style& style = client.style();
  StatusJson document = {{"server", client.url()},
                         {"health", client.get("/health")},
                         {"readiness", client.get_root("/readyz")}};
  document["running"] = client.get("/backups?limit=10000&status=running").at("backups");
  const StatusJson pending = client.get("/backups?limit=10000&status=pending");
  for (const StatusJson& backup : pending.at("backups")) document["running"].push_back(backup);
  document["repositories"] = client.get("/repositories").at("repositories");
  document["vm_count"] = client.get("/vm-contexts").at("count");

  const std::string unready = unready_text(document.at("readiness"));
  std::string text = fmt::format(
      "varve {} at {}: {}\n", cell_text(kHealth, kHealth.columns[1], document.at("health"), style),
      client.url(),
      unready.empty() ? coloured("ready", Tone::good, style) : coloured(unready, Tone::bad, style));
  const StatusJson& running = document.at("running");
  text += fmt::format("{} registered, {} running\n",
                      io::counted(document.at("vm_count").get<uint64_t>(), "VM"),
                      io::counted(running.size(), "backup"));
  if (!running.empty()) text += "\n" + table_of(kRunningJobs, running, style).text();
  text += "\n" + table_of(kRepositories, document.at("repositories"), style).text();
  print(client, document, text);
  return unready.empty() ? kOk : kFailed;
}

}  // namespace app
