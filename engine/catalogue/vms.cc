#include "engine/catalogue/vms.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "qcow/image/create.h"

namespace engine {
namespace {

constexpr size_t kVmNameBytesMax = 255;
constexpr size_t kDisksMax = 1024;  // four times what VMware's virtual machines can have
constexpr uint64_t kSectorBytes = 512;

uint64_t capacity_max() {
  static const uint64_t bytes = qcow::virtual_size_max();
  return bytes;
}

/// A disk of a registration with its key taken out of "disk-<key>".
struct KeyedDisk {
  uint32_t key;
  const NewVmDisk* disk;
};

/// Ascending key. Throws vm_context_invalid.
std::vector<KeyedDisk> keyed_disks(const PutVmContext& request) {
  if (request.disks.empty()) throw refusals::vm_context_invalid("disks");
  std::vector<KeyedDisk> disks;
  std::set<uint32_t> keys;
  for (const NewVmDisk& disk : request.disks) {
    const std::optional<uint32_t> key = vmware_disk_key(disk.disk_id);
    if (!key || !keys.insert(*key).second) throw refusals::vm_context_invalid("disks[].disk_id");
    if (disk.capacity_bytes == 0 || disk.capacity_bytes % kSectorBytes != 0) {
      throw refusals::vm_context_invalid("disks[].capacity_bytes");
    }
    if (disk.capacity_bytes > capacity_max()) {
      throw refusals::vm_context_invalid(
          fmt::format("disks[].capacity_bytes of {} is {}; an image can hold {} bytes at most",
                      disk.disk_id, disk.capacity_bytes, capacity_max()));
    }
    disks.push_back({*key, &disk});
  }
  std::sort(disks.begin(), disks.end(),
            [](const KeyedDisk& a, const KeyedDisk& b) { return a.key < b.key; });
  return disks;
}

void check_form(const PutVmContext& request) {
  const bool has_control = std::any_of(request.vm_name.begin(), request.vm_name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (request.vm_name.empty() || request.vm_name.size() > kVmNameBytesMax || has_control) {
    throw refusals::vm_context_invalid("vm_name");
  }
  if (!request.vm_path.starts_with('/')) throw refusals::vm_context_invalid("vm_path");
  if (request.vcenter_host.empty()) throw refusals::vm_context_invalid("vcenter_host");
  if (request.disks.size() > kDisksMax) {
    throw refusals::vm_context_invalid(
        fmt::format("disks: {} of them; a VM has at most {}", request.disks.size(), kDisksMax));
  }
}

/// Whether the registration backs up other disks, or other sizes, than the VM does now.
bool disks_differ(const Vm& vm, const std::vector<KeyedDisk>& disks) {
  std::set<std::pair<uint32_t, uint64_t>> now, then;
  for (const VmDisk& disk : vm.disks) {
    if (!disk.removed) now.insert({disk.key, disk.capacity_bytes});
  }
  for (const KeyedDisk& disk : disks) then.insert({disk.key, disk.disk->capacity_bytes});
  return now != then;
}

CredentialsRef changed(const CredentialsRef& stored, const CredentialsChange& change) {
  switch (change.kind) {
    case CredentialsChange::Kind::keep:
      return stored;
    case CredentialsChange::Kind::remove:
      return {};
    case CredentialsChange::Kind::reference:
      return {CredentialsRef::Kind::reference, change.reference};
    case CredentialsChange::Kind::inline_secret:
      return {CredentialsRef::Kind::inline_secret, ""};
  }
  return stored;
}

}  // namespace

void VmCatalogue::check(const PutVmContext& request) {
  check_form(request);
  const std::vector<KeyedDisk> disks = keyed_disks(request);
  const std::optional<Vm> vm = find(request.vm_name);
  if (!vm) return;
  if (vm->vcenter_host != request.vcenter_host && !request.move) {
    throw refusals::vm_of_other_vcenter(vm->vcenter_host);
  }
  if (!vm->current_job_id.empty() && disks_differ(*vm, disks)) {
    throw refusals::vm_backup_running(vm->current_job_id);
  }
}

bool VmCatalogue::put(const PutVmContext& request, Time now) {
  check(request);
  Tx tx(db_);
  const std::optional<Vm> known = find(request.vm_name);
  const CredentialsRef credentials =
      changed(known ? known->credentials : CredentialsRef{}, request.credentials);
  std::string context_id = known ? known->context_id : std::string();
  if (known) {
    Stmt(db_,
         "UPDATE vm SET vm_path = ?, inventory_name = ?, vcenter_host = ?, credentials_kind = ?, "
         "credentials_ref = ?, vmware_vm_id = ?, datacenter = ?, power_state = ?, os_type = ?, "
         "updated_at = ? WHERE context_id = ?",
         request.vm_path, inventory_name(request.vm_path), request.vcenter_host, credentials.kind,
         credentials.ref, request.vmware_vm_id, request.datacenter, request.power_state,
         request.os_type, now, context_id)
        .run();
  } else {
    Vm vm;
    vm.vm_name = request.vm_name;
    vm.safe_name = free_safe_name(request.vm_name);
    context_id = vm.context_id = context_name(vm.safe_name, now);
    vm.vm_path = request.vm_path;
    vm.vcenter_host = request.vcenter_host;
    vm.credentials = credentials;
    vm.vmware_vm_id = request.vmware_vm_id;
    vm.datacenter = request.datacenter;
    vm.power_state = request.power_state;
    vm.os_type = request.os_type;
    vm.created_at = vm.updated_at = now;
    insert_vm(vm);
  }
  put_disks(context_id, request, now);
  tx.commit();
  return !known;
}

void VmCatalogue::insert_vm(const Vm& vm) {
  Stmt(db_,
       "INSERT INTO vm (context_id, vm_name, safe_name, vm_path, inventory_name, vcenter_host, "
       "credentials_kind, credentials_ref, vmware_vm_id, datacenter, power_state, os_type, "
       "created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
       vm.context_id, vm.vm_name, vm.safe_name, vm.vm_path, inventory_name(vm.vm_path),
       vm.vcenter_host, vm.credentials.kind, vm.credentials.ref, vm.vmware_vm_id, vm.datacenter,
       vm.power_state, vm.os_type, vm.created_at, vm.updated_at)
      .run();
}

bool VmCatalogue::adopt(const Vm& vm) {
  if (Stmt(db_, "SELECT 1 FROM vm WHERE vm_name = ? OR safe_name = ?", vm.vm_name, vm.safe_name)
          .step()) {
    return false;
  }
  insert_vm(vm);
  for (const VmDisk& disk : vm.disks) {
    Stmt(db_,
         "INSERT INTO vm_disk (context_id, disk_key, disk_index, capacity_bytes, unit_number, "
         "label, vmdk_path, datastore, removed, created_at, updated_at) "
         "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
         vm.context_id, disk.key, disk.index, disk.capacity_bytes, disk.unit_number, disk.label,
         disk.vmdk_path, disk.datastore, disk.removed, vm.created_at, vm.updated_at)
        .run();
  }
  return true;
}

void VmCatalogue::put_disks(const std::string& context_id, const PutVmContext& request, Time now) {
  Stmt(db_, "UPDATE vm_disk SET removed = 1, updated_at = ? WHERE context_id = ?", now, context_id)
      .run();
  Stmt next(db_, "SELECT coalesce(max(disk_index) + 1, 0) FROM vm_disk WHERE context_id = ?",
            context_id);
  next.step();
  uint32_t free_index = next.take<uint32_t>();
  for (const auto& [key, disk] : keyed_disks(request)) {
    Stmt update(
        db_,
        "UPDATE vm_disk SET removed = 0, capacity_bytes = ?, unit_number = ?, label = ?, "
        "vmdk_path = ?, datastore = ?, updated_at = ? WHERE context_id = ? AND disk_key = ?",
        disk->capacity_bytes, disk->unit_number, disk->label, disk->vmdk_path, disk->datastore, now,
        context_id, key);
    if (update.run() > 0) continue;
    Stmt(db_,
         "INSERT INTO vm_disk (context_id, disk_key, disk_index, capacity_bytes, unit_number, "
         "label, vmdk_path, datastore, removed, created_at, updated_at) "
         "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
         context_id, key, free_index++, disk->capacity_bytes, disk->unit_number, disk->label,
         disk->vmdk_path, disk->datastore, now, now)
        .run();
  }
}

std::string VmCatalogue::free_safe_name(std::string_view vm_name) {
  const auto is_free = [this](const std::string& safe) {
    return !Stmt(db_, "SELECT 1 FROM vm WHERE safe_name = ?", safe).step();
  };
  if (std::string safe = safe_name(vm_name); is_free(safe)) return safe;
  for (const size_t digits : {12, 18, 24}) {
    if (std::string safe = safe_name_with_digest(vm_name, digits); is_free(safe)) return safe;
  }
  throw refusals::vm_context_invalid("vm_name: too like the names of other VMs");
}

std::optional<Vm> VmCatalogue::find(std::string_view vm_name) {
  std::vector<Vm> found = select("vm_name = ?1", vm_name);
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::optional<Vm> VmCatalogue::find_context(std::string_view context_id) {
  std::vector<Vm> found = select("context_id = ?1", context_id);
  if (found.empty()) return std::nullopt;
  return std::move(found.front());
}

std::vector<Vm> VmCatalogue::list() { return select("?1 = ''", ""); }

Vm VmCatalogue::resolve(std::string_view vm_name) {
  if (std::optional<Vm> registered = find(vm_name)) return std::move(*registered);
  std::vector<Vm> found = select("inventory_name = ?1", vm_name);
  if (found.empty()) throw refusals::vm_not_found(vm_name);
  if (found.size() > 1) {
    std::vector<std::string> context_ids;
    for (const Vm& vm : found) context_ids.push_back(vm.context_id);
    throw refusals::vm_ambiguous(vm_name, context_ids);
  }
  return std::move(found.front());
}

std::vector<Vm> VmCatalogue::named(std::string_view vm_name) {
  return select("vm_name = ?1 OR inventory_name = ?1", vm_name);
}

std::vector<Vm> VmCatalogue::at_path(std::string_view vm_path) {
  std::vector<Vm> found = select("vm_path = ?1", vm_path);
  if (!found.empty()) return found;
  return named(inventory_name(vm_path));
}

std::string VmCatalogue::erase(const std::string& vm_name) {
  Tx tx(db_);
  const std::optional<Vm> vm = find(vm_name);
  if (!vm) throw refusals::vm_context_not_found(vm_name);
  if (!vm->current_job_id.empty()) throw refusals::vm_has_backups(vm->current_job_id);
  Stmt completed(db_, "SELECT count(*) FROM job WHERE context_id = ? AND state = 'completed'",
                 vm->context_id);
  completed.step();
  if (const auto count = completed.take<uint64_t>(); count > 0) {
    throw refusals::vm_has_backups(fmt::format("{} backups of VM '{}' exist", count, vm_name));
  }
  Stmt(db_, "DELETE FROM job WHERE context_id = ?", vm->context_id).run();
  Stmt(db_, "DELETE FROM vm WHERE context_id = ?", vm->context_id).run();
  tx.commit();
  return vm->context_id;
}

std::vector<Vm> VmCatalogue::select(std::string_view where, std::string_view value) {
  std::vector<Vm> vms;
  Stmt select(db_,
              fmt::format("SELECT context_id, vm_name, safe_name, vm_path, vcenter_host, "
                          "credentials_kind, credentials_ref, vmware_vm_id, datacenter, "
                          "power_state, os_type, created_at, updated_at FROM vm WHERE {} "
                          "ORDER BY vm_name",
                          where),
              value);
  while (select.step()) {
    Vm vm;
    for (std::string* text :
         {&vm.context_id, &vm.vm_name, &vm.safe_name, &vm.vm_path, &vm.vcenter_host}) {
      *text = select.take<std::string>();
    }
    vm.credentials.kind = from_text<CredentialsRef::Kind>(select.take<std::string>()).value();
    for (std::string* text :
         {&vm.credentials.ref, &vm.vmware_vm_id, &vm.datacenter, &vm.power_state, &vm.os_type}) {
      *text = select.take<std::string>();
    }
    vm.created_at = select.take<Time>();
    vm.updated_at = select.take<Time>();
    vms.push_back(std::move(vm));
  }
  for (Vm& vm : vms) {
    vm.disks = disks_of(vm.context_id);
    fill_history(vm);
  }
  return vms;
}

std::vector<VmDisk> VmCatalogue::disks_of(const std::string& context_id) {
  std::vector<VmDisk> disks;
  // vm_disks.disk_change_id is the one derived column; its definition stands in the view only.
  Stmt select(db_,
              "SELECT d.id, d.disk_key, d.disk_index, d.capacity_bytes, d.unit_number, d.label, "
              "d.vmdk_path, d.datastore, v.disk_change_id, d.removed, d.created_at, d.updated_at "
              "FROM vm_disk d JOIN vm_disks v ON v.id = d.id WHERE d.context_id = ? "
              "ORDER BY d.disk_index",
              context_id);
  while (select.step()) {
    VmDisk disk;
    disk.context_id = context_id;
    disk.id = select.take<int64_t>();
    disk.key = select.take<uint32_t>();
    disk.index = select.take<uint32_t>();
    disk.capacity_bytes = select.take<uint64_t>();
    disk.unit_number = select.take<std::optional<int64_t>>();
    disk.label = select.take<std::string>();
    disk.vmdk_path = select.take<std::string>();
    disk.datastore = select.take<std::string>();
    disk.change_id = select.take<std::string>();
    disk.removed = select.take<bool>();
    disk.created_at = select.take<Time>();
    disk.updated_at = select.take<Time>();
    disks.push_back(std::move(disk));
  }
  return disks;
}

void VmCatalogue::fill_history(Vm& vm) {
  Stmt counts(db_,
              "SELECT coalesce(sum(total_backups_run), 0), coalesce(sum(successful_backups), 0), "
              "coalesce(sum(failed_backups), 0) FROM backup_context WHERE context_id = ?",
              vm.context_id);
  counts.step();
  vm.total_jobs_run = counts.take<uint64_t>();
  vm.successful_jobs = counts.take<uint64_t>();
  vm.failed_jobs = counts.take<uint64_t>();
  Stmt times(db_, "SELECT min(created_at), max(created_at) FROM job WHERE context_id = ?",
             vm.context_id);
  times.step();
  vm.first_job_at = times.take<std::optional<Time>>();
  vm.last_job_at = times.take<std::optional<Time>>();
  if (Stmt active(db_,
                  "SELECT id FROM job WHERE context_id = ? AND state IN "
                  "('preparing', 'running', 'finalizing')",
                  vm.context_id);
      active.step()) {
    vm.current_job_id = active.take<std::string>();
  }
  if (Stmt ended(
          db_,
          "SELECT state, completed_at FROM job WHERE context_id = ? AND state IN "
          "('completed', 'failed', 'cancelled') ORDER BY completed_at DESC, row DESC LIMIT 1",
          vm.context_id);
      ended.step()) {
    vm.current_status = ended.take<std::string>() == "completed" ? "completed" : "failed";
    vm.last_status_change = ended.take<std::optional<Time>>();
  }
  if (Stmt good(db_,
                "SELECT id FROM job WHERE context_id = ? AND state = 'completed' AND deleting = 0 "
                "ORDER BY completed_at DESC, row DESC LIMIT 1",
                vm.context_id);
      good.step()) {
    vm.last_successful_job_id = good.take<std::string>();
  }
}

}  // namespace engine
