// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

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

/// "2 VMs overdue: db1, web01"; "" when none is.
std::string overdue_text(const StatusJson& names) {
  constexpr size_t kShown = 20;  // more would hide the rest of the text
  if (names.empty()) return "";
  std::string text = io::counted(names.size(), "VM") + " overdue: ";
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + printable(names[i].get<std::string>());
  }
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

}  // namespace

void declare_status(CLI::App& command, StatusOptions& options) {
  declare_client(command, options);
  explain_exit(
      command,
      "What runs, which VMs are overdue, the repositories and their space. It fails when no\n"
      "backup could be started now; overdue VMs do not change the exit status.");
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
  const StatusJson vms = client.get("/vm-contexts");
  document["vm_count"] = vms.at("count");
  document["overdue"] = StatusJson::array();
  for (const StatusJson& vm : vms.at("vm_contexts")) {
    if (vm.value("overdue", false)) document["overdue"].push_back(vm.at("vm_name"));
  }

  const std::string unready = unready_text(document.at("readiness"));
  std::string text = fmt::format(
      "varve {} at {}: {}\n", cell_text(kHealth, kHealth.columns[1], document.at("health"), style),
      client.url(),
      unready.empty() ? coloured("ready", Tone::good, style) : coloured(unready, Tone::bad, style));
  const StatusJson& running = document.at("running");
  text += fmt::format("{} registered, {} running\n",
                      io::counted(document.at("vm_count").get<uint64_t>(), "VM"),
                      io::counted(running.size(), "backup"));
  const std::string overdue = overdue_text(document.at("overdue"));
  if (!overdue.empty()) text += coloured(overdue, Tone::bad, style) + "\n";
  if (!running.empty()) text += "\n" + table_of(kRunningJobs, running, style).text();
  text += "\n" + table_of(kRepositories, document.at("repositories"), style).text();
  print(client, document, text);
  return unready.empty() ? kOk : kFailed;
}

}  // namespace app
