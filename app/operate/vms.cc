// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "app/exit_status.h"
#include "app/operate/table.h"
#include "app/operate/verbs.h"
#include "app/options.h"
#include "io/counted.h"
#include "io/percent_encoding.h"

/// `varve vm`: the VMs that the server knows.
namespace app {
namespace {

/// Keys of disks that are given without one: those of a VMware VM's first controller.
constexpr uint64_t kFirstKey = 2000;

std::string vm_target(const std::string& vm_name) {
  return "/vm-contexts/" + io::percent_encoded(vm_name);
}

void declare_vm(CLI::App& command, std::string& vm_name) {
  command.add_option("VM", vm_name, "its registered name")->required();
}

bool is_known(const Client& client, const std::string& vm_name) {
  try {
    client.get(vm_target(vm_name));
    return true;
  } catch (const ServerRefused& refused) {
    if (refused.status() != 404) throw;
    return false;
  }
}

/// "64G" or "2000=64G" as the API wants it.
nlohmann::json disk_of(const std::string& text, size_t index) {
  const size_t equals = text.find('=');
  const std::string key =
      equals == std::string::npos ? std::to_string(kFirstKey + index) : text.substr(0, equals);
  const std::string size = equals == std::string::npos ? text : text.substr(equals + 1);
  try {
    return {{"disk_id", "disk-" + key}, {"capacity_bytes", parse_size(size)}};
  } catch (const UsageError& error) {
    throw UsageError(fmt::format("--disk {}: {}", text, error.what()));
  }
}

std::string vm_text(const nlohmann::json& vm, const Style& style) {
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
  const nlohmann::json found = client.get("/vm-contexts");
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
  const nlohmann::json vm = client.get(vm_target(options.vm_name));
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
  command.add_flag("--replace", options.replace, "register anew what is registered already");
  declare_client(command, options);
  explain_exit(command,
               "`varve pull` registers its VMs by itself. A VM that `varve backup` is to work for\n"
               "needs --vm-path, --vcenter and --secret.");
}

int run_vm_add(const VmAddOptions& options) {
  const Client client(options);
  if (!options.replace && is_known(client, options.vm_name)) {
    throw CommandFailed(kBusy, fmt::format("VM '{}' is registered already; --replace does it anew",
                                           options.vm_name));
  }
  nlohmann::json body = {{"disks", nlohmann::json::array()}};
  for (size_t i = 0; i < options.disks.size(); ++i) {
    body["disks"].push_back(disk_of(options.disks[i], i));
  }
  if (!options.vm_path.empty()) body["vm_path"] = options.vm_path;
  if (!options.vcenter_host.empty()) body["vcenter_host"] = options.vcenter_host;
  if (!options.secret.empty()) body["credentials"] = {{"ref", options.secret}};
  const nlohmann::json vm = client.send("PUT", vm_target(options.vm_name), body);
  print(client, vm,
        fmt::format("VM '{}' is registered with {}\n", printable(options.vm_name),
                    io::counted(options.disks.size(), "disk")));
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
  const nlohmann::json done = client.remove(vm_target(options.vm_name));
  print(client, done, fmt::format("VM '{}' is forgotten\n", printable(options.vm_name)));
  return kOk;
}

}  // namespace app
