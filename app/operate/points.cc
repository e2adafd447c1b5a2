// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "app/exit_status.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "engine/values/point_name.h"
#include "io/counted.h"
#include "io/percent_encoding.h"

/// `varve list`, `show` and `delete`: restore points. The API has one for each disk; a person
/// thinks of the backup, so its disks are shown as one.
namespace app {
namespace {

using PointJson = nlohmann::json;

/// The most that one answer has.
constexpr size_t kPage = 10000;

/// All points of a query, newest first, in a document as the API's.
PointJson all_points(const Client& client, const std::string& query) {
  PointJson all = PointJson::array();
  for (size_t count = kPage; count == kPage;) {
    const PointJson page =
        client.get(fmt::format("/points?{}&limit={}&offset={}", query, kPage, all.size()));
    count = page.at("points").size();
    for (const PointJson& point : page.at("points")) all.push_back(point);
  }
  return {{"points", all}, {"count", all.size()}};
}

/// Worse results come first.
int badness(const PointJson& point) {
  const std::string result = point.value("verification", "");
  return result == "damaged" ? 0 : result == "sound" ? 2 : 1;
}

/// The disks of one backup as one: sizes summed up, proven as the least proven disk is.
PointJson joined_disks(const std::vector<const PointJson*>& disks) {
  PointJson whole = *disks.front();
  for (size_t i = 1; i < disks.size(); ++i) {
    const PointJson& disk = *disks[i];
    for (const char* sum : {"size_bytes", "bytes_received", "bytes_stored"}) {
      whole[sum] = whole.at(sum).get<uint64_t>() + disk.at(sum).get<uint64_t>();
    }
    if (disk.at("backup_type") != "full") whole["backup_type"] = disk.at("backup_type");
    if (badness(disk) < badness(whole)) whole["verification"] = disk.value("verification", "");
    const PointJson& proven = disk.at("verified_at");
    if (proven.is_null() || (!whole.at("verified_at").is_null() &&
                             proven.get<std::string>() < whole["verified_at"].get<std::string>())) {
      whole["verified_at"] = proven;
    }
  }
  return whole;
}

/// One object for each backup, in the order of the answer.
std::vector<PointJson> backups_of(const PointJson& points) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const PointJson*>> disks;
  for (const PointJson& point : points) {
    const auto id = point.at("backup_id").get<std::string>();
    if (disks[id].empty()) order.push_back(id);
    disks[id].push_back(&point);
  }
  std::vector<PointJson> backups;
  for (const std::string& id : order) backups.push_back(joined_disks(disks[id]));
  return backups;
}

int list_all(const Client& client) {
  const PointJson found = all_points(client, "point=latest");
  std::map<std::string, PointJson> newest;
  for (PointJson& backup : backups_of(found.at("points"))) {
    newest.try_emplace(backup.at("vm_name"), std::move(backup));  // the newest comes first
  }
  Table table(kNewestPoints, client.style());
  const PointJson vms = client.get("/vm-contexts");
  for (const PointJson& vm : vms.at("vm_contexts")) {
    const auto point = newest.find(vm.at("vm_name"));
    table.add(point != newest.end() ? point->second : PointJson{{"vm_name", vm.at("vm_name")}});
  }
  print(client, found, table.empty() ? "no VM is registered; see varve vm add\n" : table.text());
  return kOk;
}

/// The chains of a VM, the newest last; in each the full first.
int list_vm(const Client& client, const std::string& vm_name) {
  const PointJson found = all_points(client, "vm_name=" + io::percent_encoded(vm_name));
  std::vector<PointJson> backups = backups_of(found.at("points"));
  const auto place = [](const PointJson& point) {
    return std::tuple(point.at("repository_id").get<std::string>(),
                      point.at("generation").get<uint64_t>());
  };
  std::stable_sort(backups.begin(), backups.end(), [&](const PointJson& a, const PointJson& b) {
    const auto position = [](const PointJson& point) {
      return point.at("position").get<uint64_t>();
    };
    return std::tuple_cat(place(a), std::tuple(position(a))) <
           std::tuple_cat(place(b), std::tuple(position(b)));
  });
  const bool utf8 = client.style().utf8;
  uint64_t stored = 0;
  Table table(kChainPoints, client.style());
  for (size_t i = 0; i < backups.size(); ++i) {
    const bool begins = i == 0 || place(backups[i]) != place(backups[i - 1]);
    const bool ends = i + 1 == backups.size() || place(backups[i]) != place(backups[i + 1]);
    const char* const branch = ends ? (utf8 ? "└─ " : "`- ") : (utf8 ? "├─ " : "|- ");
    table.add(backups[i], begins ? "" : branch);
    stored += backups[i].at("bytes_stored").get<uint64_t>();
  }
  std::string text = fmt::format("VM {} has no restore point\n", printable(vm_name));
  if (!table.empty()) {
    text = fmt::format("{}\nVM {}: {}, {} stored\n", table.text(), printable(vm_name),
                       io::counted(backups.size(), "restore point"),
                       size_text(stored, client.style()));
  }
  print(client, found, text);
  return kOk;
}

/// The points of a backup; none of one that was not published.
PointJson points_of(const Client& client, const PointJson& backup) {
  try {
    return client
        .get(fmt::format("/points?vm_name={}&point={}",
                         io::percent_encoded(backup.at("vm_name").get<std::string>()),
                         io::percent_encoded(backup.at("backup_id").get<std::string>())))
        .at("points");
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
    return PointJson::array();
  }
}

}  // namespace

void declare_list(CLI::App& command, ListOptions& options) {
  command.add_option("VM", options.vm_name,
                     "its chains: each full with the incrementals on it; without VM the newest\n"
                     "restore point of every one");
  declare_client(command, options);
}

int run_list(const ListOptions& options) {
  const Client client(options);
  return options.vm_name.empty() ? list_all(client) : list_vm(client, options.vm_name);
}

void declare_show(CLI::App& command, ShowOptions& options) {
  command
      .add_option("POINT", options.point,
                  "a backup id, or VM, VM@latest, VM@TIME (the newest until then, RFC 3339)")
      ->required();
  declare_client(command, options);
}

int run_show(const ShowOptions& options) {
  const Client client(options);
  const Style& style = client.style();
  const std::string id = client.backup_id_of(options.point);
  PointJson document = {{"backup", client.get("/backups/" + io::percent_encoded(id))}};
  const PointJson& backup = document["backup"];
  document["disks"] = client.get("/backups/" + io::percent_encoded(id) + "/disks").at("disks");
  document["points"] = points_of(client, backup);
  std::string text = details_text(kBackup, backup, style);
  text += "\n" + table_of(kBackupDisks, document["disks"], style).text();
  const Table points = table_of(kPointDisks, document["points"], style);
  if (!points.empty()) text += "\n" + points.text();
  for (const PointJson& warning : backup.value("warnings", PointJson::array())) {
    text += "\n" + details_text(kWarnings, warning, style);
  }
  print(client, document, text);
  return kOk;
}

void declare_delete(CLI::App& command, DeleteOptions& options) {
  command
      .add_option("POINT", options.point,
                  "a backup id, or VM@latest, VM@TIME (the newest until then, RFC 3339)")
      ->required();
  command.add_flag("--cascade", options.cascade, "also every later backup that stands on it");
  declare_yes(command, options.yes);
  declare_client(command, options);
  explain_exit(command,
               "Its files are removed. What others stand on goes only with --cascade. A VM's name\n"
               "alone is refused.");
}

namespace {

/// Throws UsageError for a VM's bare name: it is the newest point where something is read, and too
/// easily typed where its backups are meant, or the VM itself.
std::string backup_to_delete(const Client& client, const std::string& point) {
  std::string id = client.backup_id_of(point);
  const bool is_named = id == point || !engine::split_point(point).second.empty();
  if (is_named) return id;
  throw UsageError(
      fmt::format("'{0}' is a VM, and what is deleted is named: {0}@latest (now {1}), "
                  "{0}@TIME or a backup id; `varve list {0}` shows them",
                  point, id));
}

}  // namespace

int run_delete(const DeleteOptions& options) {
  const Client client(options);
  const std::string id = backup_to_delete(client, options.point);
  require_yes(options.yes, fmt::format("Delete backup {}{}?", id,
                                       options.cascade ? " and all that stand on it" : ""));
  const PointJson done = client.remove(fmt::format("/backups/{}{}", io::percent_encoded(id),
                                                   options.cascade ? "?cascade=true" : ""));
  std::string text;
  for (const PointJson& deleted : done.at("deleted")) {
    text += fmt::format("deleted {}\n", printable(deleted.get<std::string>()));
  }
  text +=
      fmt::format("{} freed\n", size_text(done.at("freed_bytes").get<uint64_t>(), client.style()));
  print(client, done, text);
  return kOk;
}

}  // namespace app
