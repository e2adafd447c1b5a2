// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "api/object.h"
#include "engine/values/views.h"

/// Repositories and VMs as JSON: the tables that docs/http-api.md describes under "Repositories"
/// and "VM contexts". Pure.
namespace api {

const Object<engine::StorageInfo>& storage_object();
const Object<engine::RepositoryView>& repository_object();
const Object<engine::RepositoryTest>& repository_test_object();

struct ShownVm {
  const engine::VmView& view;
  int64_t pid;  ///< shown as qemu_nbd_pid of its backups' disks
};

/// One of a list.
const Object<engine::ListedVm>& listed_vm_object();
const Object<ShownVm>& vm_object();
/// The five members of GET /vm-contexts/{vm}/disks.
const Object<engine::VmDisk>& short_disk_object();

/// The schemas of these objects and of those inside them.
std::vector<Schema> repository_object_schemas();
std::vector<Schema> vm_object_schemas();

}  // namespace api
