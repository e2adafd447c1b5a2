// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/vms.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/catalogue/tables.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "engine/values/registration.h"
#include "io/counted.h"
#include "qcow/image/create.h"

namespace engine {
namespace {

using DisksByKey = std::map<uint32_t, const NewVmDisk*>;

/// Throws vm_context_invalid.
DisksByKey disks_by_key(const PutVmContext& request) {
  static const uint64_t capacity_max = qcow::virtual_size_max();
  check_registration(request);
  DisksByKey disks;
  for (const NewVmDisk& disk : request.disks) {
    if (disk.capacity_bytes > capacity_max) {
      throw refusals::vm_context_invalid(
          fmt::format("disks[].capacity_bytes of {} is {}; an image can hold {} bytes at most",
                      disk.disk_id, disk.capacity_bytes, capacity_max));
    }
    disks[vmware_disk_key(disk.disk_id).value()] = &disk;
  }
  return disks;
}

/// Whether the registration backs up other disks, or other sizes, than the VM does now.
bool disks_differ(const Vm& vm, const DisksByKey& disks) {
  std::set<std::pair<uint32_t, uint64_t>> now, then;
  for (const VmDisk& disk : vm.disks) {
    if (!disk.removed) now.insert({disk.key, disk.capacity_bytes});
  }
  for (const auto& [key, disk] : disks) then.insert({key, disk->capacity_bytes});
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

std::string free_safe_name(Db& db, std::string_view vm_name) {
  const auto is_free = [&db](const std::string& safe) {
    return !Stmt(db, "SELECT 1 FROM vm WHERE safe_name = ?", safe).step();
  };
  if (std::string safe = safe_name(vm_name); is_free(safe)) return safe;
  for (const size_t digits : {12, 18, 24}) {
    if (std::string safe = safe_name_with_digest(vm_name, digits); is_free(safe)) return safe;
  }
  throw refusals::vm_context_invalid("vm_name: too like the names of other VMs");
}

/// A disk keeps its index; one that is not in the request is marked removed.
void put_disks(Db& db, Vm vm, const PutVmContext& request) {
  for (VmDisk& disk : vm.disks) {
    disk.removed = true;
    disk.updated_at = vm.updated_at;
  }
  for (const auto& [key, given] : disks_by_key(request)) {
    auto disk = std::find_if(vm.disks.begin(), vm.disks.end(),
                             [key = key](const VmDisk& known) { return known.key == key; });
    if (disk == vm.disks.end()) {
      const uint32_t free_index = vm.disks.empty() ? 0 : vm.disks.back().index + 1;
      disk = vm.disks.insert(disk, {.context_id = vm.context_id, .key = key, .index = free_index});
      disk->created_at = disk->updated_at = vm.updated_at;
    }
    disk->removed = false;
    disk->capacity_bytes = given->capacity_bytes;
    disk->unit_number = given->unit_number;
    disk->label = given->label;
    disk->vmdk_path = given->vmdk_path;
    disk->datastore = given->datastore;
  }
  for (const VmDisk& disk : vm.disks) {
    if (update_row(db, "vm_disk", kVmDiskTable, disk, "context_id = ? AND disk_key = ?",
                   disk.context_id, disk.key) == 0) {
      insert_row(db, "vm_disk", kVmDiskTable, disk);
    }
  }
}

}  // namespace

void VmCatalogue::check(const PutVmContext& request) {
  const DisksByKey disks = disks_by_key(request);
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
  Vm vm = known.value_or(Vm{.vm_name = request.vm_name, .created_at = now});
  vm.vm_path = request.vm_path;
  vm.vcenter_host = request.vcenter_host;
  vm.credentials = changed(vm.credentials, request.credentials);
  vm.vmware_vm_id = request.vmware_vm_id;
  vm.datacenter = request.datacenter;
  vm.power_state = request.power_state;
  vm.os_type = request.os_type;
  if (request.expected_interval.is_given) {
    vm.expected_interval_seconds = request.expected_interval.seconds;
  }
  vm.updated_at = now;
  if (known) {
    update_row(db_, "vm", kVmTable, vm, "context_id = ?", vm.context_id);
  } else {
    vm.safe_name = free_safe_name(db_, vm.vm_name);
    vm.context_id = context_name(vm.safe_name, now);
    insert_row(db_, "vm", kVmTable, vm);
  }
  put_disks(db_, std::move(vm), request);
  tx.commit();
  return !known;
}

/// Disks that were registered after the catalogue was copied.
void VmCatalogue::adopt_disks(const Vm& known, const Vm& found) {
  for (VmDisk disk : found.disks) {
    const bool is_known = std::any_of(
        known.disks.begin(), known.disks.end(),
        [&](const VmDisk& one) { return one.key == disk.key || one.index == disk.index; });
    if (is_known) continue;
    disk.context_id = known.context_id;
    disk.created_at = disk.updated_at = found.updated_at;
    insert_row(db_, "vm_disk", kVmDiskTable, disk);
  }
}

bool VmCatalogue::adopt(const Vm& vm) {
  if (const std::optional<Vm> known = find_context(vm.context_id)) {
    adopt_disks(*known, vm);
    return true;
  }
  if (Stmt(db_, "SELECT 1 FROM vm WHERE vm_name = ? OR safe_name = ?", vm.vm_name, vm.safe_name)
          .step()) {
    return false;
  }
  insert_row(db_, "vm", kVmTable, vm);
  for (VmDisk disk : vm.disks) {
    disk.context_id = vm.context_id;
    disk.created_at = vm.created_at;
    disk.updated_at = vm.updated_at;
    insert_row(db_, "vm_disk", kVmDiskTable, disk);
  }
  return true;
}

std::optional<Vm> VmCatalogue::find(std::string_view vm_name) {
  return first_of(select("vm_name = ?1", vm_name));
}

std::optional<Vm> VmCatalogue::find_context(std::string_view context_id) {
  return first_of(select("context_id = ?1", context_id));
}

std::vector<Vm> VmCatalogue::list() { return select("?1 = ''", ""); }

namespace {

struct DiskTotals {
  std::string context_id;
  uint64_t count = 0, capacity_bytes = 0;
};

/// By context.
std::map<std::string, DiskTotals> disk_totals(Db& db) {
  static constexpr auto kColumns = columns<DiskTotals>(
      col("context_id", &DiskTotals::context_id), derived("count(*)", &DiskTotals::count),
      derived("sum(capacity_bytes)", &DiskTotals::capacity_bytes));
  std::map<std::string, DiskTotals> totals;
  for (DiskTotals& each :
       select_rows(db, kColumns, "FROM vm_disk WHERE removed = 0 GROUP BY context_id")) {
    totals[each.context_id] = std::move(each);
  }
  return totals;
}

/// By context. Each repository knows its newest backup; the newest of them all counts.
std::map<std::string, LastPoint> last_points(Db& db) {
  static constexpr auto kColumns = columns<LastPoint>(
      col("j.context_id", &LastPoint::context_id), col("j.id", &LastPoint::job_id),
      col("j.repository_id", &LastPoint::repository_id), col("j.type", &LastPoint::type),
      col("j.completed_at", &LastPoint::completed_at),
      derived("sum(d.allocated_bytes)", &LastPoint::allocated_bytes),
      derived("max(d.position) + 1", &LastPoint::chain_length),
      derived("CASE count(*) WHEN count(v.image_id) THEN min(v.verified_at) END",
              &LastPoint::verified_at),
      derived("CASE WHEN coalesce(max(v.result = 'damaged'), 0) THEN 'damaged'"
              " WHEN count(*) > count(v.image_id) THEN ''"
              " WHEN max(v.result = 'without_manifest') THEN 'without_manifest' ELSE 'sound' END",
              &LastPoint::verification));
  std::map<std::string, LastPoint> newest;
  for (LastPoint& each :
       select_rows(db, kColumns,
                   "FROM backup_context b JOIN job j ON j.id = b.last_backup_id "
                   "JOIN job_disk d ON d.job_id = j.id "
                   "LEFT JOIN verification v ON v.image_id = d.image_id "
                   "WHERE j.deleting = 0 GROUP BY b.id ORDER BY j.completed_at, j.row")) {
    newest[each.context_id] = std::move(each);
  }
  return newest;
}

/// By context.
std::map<std::string, uint64_t> damaged_images(Db& db) {
  std::map<std::string, uint64_t> counts;
  Stmt select(db,
              "SELECT j.context_id, count(*) FROM verification v "
              "JOIN job_disk d ON d.image_id = v.image_id JOIN job j ON j.id = d.job_id "
              "WHERE v.result = 'damaged' AND j.deleting = 0 GROUP BY j.context_id");
  while (select.step()) {
    const auto context_id = select.take<std::string>();
    counts[context_id] = select.take<uint64_t>();
  }
  return counts;
}

}  // namespace

std::vector<ListedVm> VmCatalogue::listed() {
  auto disks = disk_totals(db_);
  auto points = last_points(db_);
  auto damaged = damaged_images(db_);
  std::vector<ListedVm> listed;
  for (Vm& vm : select_rows(db_, kVmTable, "FROM vm ORDER BY vm_name")) {
    ListedVm each{.disk_count = disks[vm.context_id].count,
                  .capacity_bytes = disks[vm.context_id].capacity_bytes,
                  .damaged_points = damaged[vm.context_id]};
    if (const auto last = points.find(vm.context_id); last != points.end()) {
      each.last_point = std::move(last->second);
    }
    each.vm = std::move(vm);
    listed.push_back(std::move(each));
  }
  return listed;
}

std::vector<Vm> VmCatalogue::list_ages() {
  return select_rows(db_, kVmAgeTable, "FROM vm ORDER BY vm_name");
}

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
  if (const uint64_t count = completed.first<uint64_t>().value(); count > 0) {
    throw refusals::vm_has_backups(fmt::format("{} of VM '{}' {}", io::counted(count, "backup"),
                                               vm_name, count == 1 ? "exists" : "exist"));
  }
  Stmt(db_, "DELETE FROM job WHERE context_id = ?", vm->context_id).run();
  Stmt(db_, "DELETE FROM vm WHERE context_id = ?", vm->context_id).run();
  tx.commit();
  return vm->context_id;
}

std::vector<Vm> VmCatalogue::select(std::string_view where, std::string_view value) {
  std::vector<Vm> vms =
      select_rows(db_, kVmTable, fmt::format("FROM vm WHERE {} ORDER BY vm_name", where), value);
  for (Vm& vm : vms) {
    vm.disks = select_rows(db_, kVmDiskTable,
                           "FROM vm_disk WHERE context_id = ? ORDER BY disk_index", vm.context_id);
  }
  return vms;
}

}  // namespace engine
