// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "app/exit_status.h"
#include "app/numbers.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "app/registration.h"
#include "io/counted.h"
#include "io/percent_encoding.h"

/// `varve vm`: the VMs that the server knows.
namespace app {
namespace {

using VmJson = nlohmann::json;

/// Keys of a new VM's disks that are given without one: those of a VMware VM's first controller.
constexpr uint64_t kFirstKey = 2000;

std::string vm_target(const std::string& vm_name) {
  return "/vm-contexts/" + io::percent_encoded(vm_name);
}

void declare_vm(CLI::App& command, std::string& vm_name) {
  command.add_option("VM", vm_name, "its registered name")->required();
}

/// What the server knows of a VM; null when it knows none of that name.
VmJson find_vm(const Client& client, const std::string& vm_name) {
  try {
    return client.get(vm_target(vm_name));
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
    return nullptr;
  }
}

/// The disks of a VM that are backed up, by index.
VmJson disks_in_use(const VmJson& vm) {
  VmJson disks = VmJson::array();
  for (const VmJson& disk : vm.at("disks")) {
    if (!disk.value("removed", false)) disks.push_back(registered_again(disk));
  }
  return disks;
}

/// A registration that changes nothing. Credentials and interval stay when they are left out.
VmJson registration_of(const VmJson& vm) {
  VmJson body = context_again(vm.at("context"));
  body["disks"] = disks_in_use(vm);
  return body;
}

/// "64G" or "2000=64G".
struct DiskText {
  std::string key;  ///< "": not said
  uint64_t bytes = 0;
};

DiskText parse_disk(const std::string& text) {
  const size_t equals = text.find('=');
  DiskText disk;
  if (equals != std::string::npos) disk.key = text.substr(0, equals);
  try {
    disk.bytes = parse_size(equals == std::string::npos ? text : text.substr(equals + 1));
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("--disk {}: {}", text, error.what()));
  }
  return disk;
}

/// One more than every key of the VM, removed disks included; 2000 for a VM that is not known.
uint64_t first_free_key(const VmJson& vm) {
  if (vm.is_null()) return kFirstKey;
  uint64_t key = 0;
  for (const VmJson& disk : vm.at("disks")) {
    key = std::max(key, disk.at("vmware_disk_key").get<uint64_t>() + 1);
  }
  return key;
}

/// The disks to register for a VM of which the server knows `vm`, or null. A disk without a key is
/// the known one in its place: under another id it would be another disk, and the known one gone.
VmJson disks_to_register(const std::vector<std::string>& texts, const VmJson& vm) {
  const VmJson known = vm.is_null() ? VmJson::array() : disks_in_use(vm);
  const uint64_t free_key = first_free_key(vm);
  VmJson disks = VmJson::array();
  for (size_t i = 0; i < texts.size(); ++i) {
    const DiskText given = parse_disk(texts[i]);
    const bool is_known = i < known.size();
    const uint64_t new_key = free_key + i - std::min(i, known.size());
    std::string id = "disk-" + (given.key.empty() ? std::to_string(new_key) : given.key);
    if (given.key.empty() && is_known) id = known[i].at("disk_id");
    VmJson disk = {{"disk_id", id}};
    for (const VmJson& one : known) {
      if (one.at("disk_id") == id) disk = one;
    }
    disk["capacity_bytes"] = given.bytes;
    disks.push_back(std::move(disk));
  }
  return disks;
}

/// What the API's expected_interval_seconds is: "25h", "none" (0) or "default" (null).
/// Throws UsageError.
VmJson interval_of(const std::string& text) {
  if (text == "none") return 0;
  if (text == "default") return nullptr;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(parse_duration(text));
  if (seconds.count() > 0) return seconds.count();
  throw UsageError(fmt::format("\"{}\" is less than a second; none expects no backup", text));
}

CLI::Option* declare_interval(CLI::App& command, std::string& interval) {
  const auto take = [&interval](const std::string& text) {
    interval_of(text);
    interval = text;
  };
  return add_value(command, "--expected-interval", take,
                   "how often a good backup is expected, 25h say; without one the VM is overdue.\n"
                   "none: never; default: as the server's --expected-interval says",
                   "TIME");
}

std::string vm_text(const VmJson& vm, const Style& style) {
  std::string text = details_text(kVm, vm.at("context"), style);
  text += "\n" + table_of(kVmDisks, vm.at("disks"), style).text();
  const Table jobs = table_of(kVmJobs, vm.at("job_history"), style);
  return jobs.empty() ? text : text + "\n" + jobs.text();
}

}  // namespace

void declare_vm_list(CLI::App& command, VmListOptions& options) {
  declare_client(command, options);
}

int run_vm_list(const VmListOptions& options) {
  const Client client(options);
  const VmJson found = client.get("/vm-contexts");
  const Table table = table_of(kVms, found.at("vm_contexts"), client.style());
  print(client, found, table.empty() ? "no VM is registered; see varve vm add\n" : table.text());
  return kOk;
}

void declare_vm_show(CLI::App& command, VmShowOptions& options) {
  declare_vm(command, options.vm_name);
  declare_client(command, options);
  explain_exit(command, "The VM, its disks and its last backups. `varve list VM` has its points.");
}

int run_vm_show(const VmShowOptions& options) {
  const Client client(options);
  const VmJson vm = client.get(vm_target(options.vm_name));
  print(client, vm, vm_text(vm, client.style()));
  return kOk;
}

void declare_vm_add(CLI::App& command, VmAddOptions& options) {
  declare_vm(command, options.vm_name);
  command
      .add_option("--disk", options.disks,
                  "size of a disk, 64G say; once for each, in their order. With KEY= its VMware\n"
                  "key (default 2000, 2001, ...)")
      ->type_name("[KEY=]SIZE")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--vm-path", options.vm_path, "inventory path in vCenter, /DC/vm/NAME")
      ->type_name("PATH")
      ->group("VMware");
  command.add_option("--vcenter", options.vcenter_host, "host of vCenter")
      ->type_name("HOST")
      ->group("VMware");
  command
      .add_option("--secret", options.secret,
                  "name of the credentials in the server's configuration, [secrets.NAME]")
      ->type_name("NAME")
      ->group("VMware");
  command.add_flag("--replace", options.replace,
                   "register anew what is registered already; its disks keep their ids, in their\n"
                   "order, and what is not given of a VMware VM is forgotten");
  command
      .add_flag("--move", options.move, "the same, and it may be in another vCenter, or in none")
      ->group("VMware");
  declare_interval(command, options.expected_interval);
  declare_client(command, options);
  explain_exit(
      command,
      "`varve pull` registers its VMs by itself. A VM that `varve backup` is to work for\n"
      "needs --vm-path, --vcenter and --secret. `varve vm set` changes one thing of a VM.");
}

int run_vm_add(const VmAddOptions& options) {
  const Client client(options);
  for (const std::string& disk : options.disks) parse_disk(disk);  // before anything is asked
  const VmJson known = find_vm(client, options.vm_name);
  if (!options.replace && !options.move && !known.is_null()) {
    throw CommandFailed(
        kBusy, fmt::format("VM '{}' is registered already; --replace does it anew, `varve vm set` "
                           "changes its expected interval",
                           options.vm_name));
  }
  VmJson body = {{"disks", disks_to_register(options.disks, known)}};
  if (!options.vm_path.empty()) body["vm_path"] = options.vm_path;
  if (!options.vcenter_host.empty()) body["vcenter_host"] = options.vcenter_host;
  if (!options.secret.empty()) body["credentials"] = {{"ref", options.secret}};
  if (!options.expected_interval.empty()) {
    body["expected_interval_seconds"] = interval_of(options.expected_interval);
  }
  const std::string query = options.move ? "?move=true" : "";
  const VmJson vm = client.send("PUT", vm_target(options.vm_name) + query, body);
  if (vm.at("context").value("secret_missing", false)) {
    fmt::print(stderr,
               "varve: warning: the server has no secret '{0}'; until [secrets.{0}] with username "
               "and password is in its varve.toml, and it has reloaded that, no backup can start\n",
               printable(options.secret));
  }
  print(client, vm,
        fmt::format("VM '{}' is registered with {}\n", printable(options.vm_name),
                    io::counted(options.disks.size(), "disk")));
  return kOk;
}

void declare_vm_set(CLI::App& command, VmSetOptions& options) {
  declare_vm(command, options.vm_name);
  declare_interval(command, options.expected_interval)->required();
  declare_client(command, options);
  explain_exit(command, "Disks, vCenter and credentials stay as they are.");
}

int run_vm_set(const VmSetOptions& options) {
  const Client client(options);
  const std::string target = vm_target(options.vm_name);
  VmJson body = registration_of(client.get(target));
  body["expected_interval_seconds"] = interval_of(options.expected_interval);
  const VmJson vm = client.send("PUT", target, body);
  print(client, vm, details_text(kVmExpected, vm.at("context"), client.style()));
  return kOk;
}

void declare_vm_remove(CLI::App& command, VmRemoveOptions& options) {
  declare_vm(command, options.vm_name);
  declare_yes(command, options.yes);
  declare_client(command, options);
  explain_exit(command, "Only a VM without backups can be forgotten.");
}

int run_vm_remove(const VmRemoveOptions& options) {
  const Client client(options);
  require_yes(options.yes, fmt::format("Forget VM '{}'?", printable(options.vm_name)));
  const VmJson done = client.remove(vm_target(options.vm_name));
  print(client, done, fmt::format("VM '{}' is forgotten\n", printable(options.vm_name)));
  return kOk;
}

}  // namespace app
