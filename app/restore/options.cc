// SPDX-License-Identifier: Apache-2.0
#include "app/restore/options.h"

#include <fmt/format.h>

#include <stdexcept>

#include "app/numbers.h"
#include "app/server_options.h"
#include "engine/values/point_name.h"
#include "nbd/uri.h"

namespace app {

void declare_restore(CLI::App& command, RestoreOptions& options) {
  command
      .add_option("VM[@POINT]", options.vm_name,
                  "the VM's registered name; POINT is a backup id, an RFC 3339 time (the newest\n"
                  "point until then), or latest, which is the default")
      ->required();
  add_number(command, "--disk", options.disk_id, 0, UINT32_MAX, "disk index (default 0)");
  command
      .add_option("--to", options.target,
                  "a raw file, a QCOW2 file (*.qcow2), a block device, or an NBD export\n"
                  "(nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, both with nbds)")
      ->type_name("TARGET");
  command.add_option("--all-disks", options.all_disks, "every disk, as DIR/disk-N.raw")
      ->type_name("DIR");
  command
      .add_option("--since", options.since,
                  "the target holds this older point: send only what differs from it")
      ->type_name("POINT");
  command.add_flag("--resume", options.resume, "continue a restore that was interrupted");
  command.add_flag("--force", options.force, "overwrite a target that is there");
  command.add_flag("--json", options.json, "print one JSON object a line, errors too");
  declare_server(command, options.server, options.token);
  declare_tls_client(command, options.tls);
  declare_parallel(command, options.connections, options.requests);
  command.footer(
      "Files are written as TARGET.partial, and get their name when all is there and durable.\n"
      "Exit status: 0 restored, 1 failed, 2 wrong usage, 10 no such VM, disk or point,\n"
      "11 the target is there already or too small, 12 refused by access, 130 interrupted.");
}

RestoreOptions checked(RestoreOptions options) {
  const auto [vm_name, point] = engine::split_point(options.vm_name);
  options.vm_name = vm_name;
  if (!point.empty()) options.point = point;
  complete_server(options.server, options.token);
  if (options.vm_name.empty()) throw UsageError("varve restore: VM is empty");
  if (options.target.empty() == options.all_disks.empty()) {
    throw UsageError("varve restore: one of --to and --all-disks is needed");
  }
  try {
    if (nbd::is_uri(options.target)) nbd::parse_uri(options.target);
  } catch (const std::invalid_argument& error) {
    throw UsageError(fmt::format("--to {}", error.what()));
  }
  if (!options.since.empty() && options.resume) {
    throw UsageError("--resume and --since exclude each other: what differs can be sent again");
  }
  return options;
}

}  // namespace app
