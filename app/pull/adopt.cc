// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <stdexcept>

#include "app/commands.h"
#include "app/copy_report.h"
#include "app/pull/pull.h"
#include "io/counted.h"
#include "io/ring_thread.h"
#include "qcow/chain/chain.h"
#include "qcow/check/check.h"

/// `varve adopt`: QCOW2 images that others have made become points, a backup for each layer.
namespace app {
namespace {

namespace fs = std::filesystem;

std::string path_of(const PullDisk& disk) { return disk.source.substr(kImagePrefix.size()); }

/// "" when it names none. Relative names are the directory's of the image.
fs::path backing_of(io::RingRuntime& here, const std::string& path) {
  const auto image = here.ring().run(qcow::Chain::open(here.runtime(), path, {.alone = true}));
  const std::string& name = image->layer(0).header().backing_name;
  return name.empty() ? fs::path() : fs::path(path).parent_path() / name;
}

void require_sound(io::RingRuntime& here, const std::string& path, bool json) {
  const qcow::CheckResult result = here.ring().run(qcow::check(here.runtime(), path, {}));
  if (result.corruptions > 0) {
    throw std::runtime_error(fmt::format("{} is damaged: {}{}", path, result.findings.front(),
                                         result.corruptions > 1 ? ", and more" : ""));
  }
  if (result.leaks > 0) {
    report_warning(
        json, fmt::format("{}: {} left behind", path, io::counted(result.leaks, "leaked cluster")));
  }
}

/// The changes of an image are against its backing file and nothing else: the layer before it is
/// that file, or the image says nothing and its owner does.
void require_order(const fs::path& backing, const std::string& path, const std::string& before,
                   bool has_parent) {
  if (before.empty()) {
    if (backing.empty() || has_parent) return;
    throw std::runtime_error(
        fmt::format("{} has the backing file {}: name that before it, or say with --parent which "
                    "point has its content",
                    path, backing.string()));
  }
  std::error_code error;
  if (backing.empty() || fs::equivalent(backing, before, error)) return;
  throw std::runtime_error(
      fmt::format("the backing file of {} is {}, and not {}: name the images in the order of their "
                  "chain",
                  path, backing.string(), before));
}

/// All images, before anything is made of them.
void check_all(const AdoptOptions& options) {
  io::RingRuntime here;
  for (size_t at = 0; at < options.layers.size(); ++at) {
    for (size_t disk = 0; disk < options.layers[at].size(); ++disk) {
      const std::string path = path_of(options.layers[at][disk]);
      const std::string before = at > 0 ? path_of(options.layers[at - 1][disk]) : "";
      require_order(backing_of(here, path), path, before, !options.parent.empty());
      require_sound(here, path, options.pull.json);
    }
  }
}

void adopt(const AdoptOptions& options, Hub& hub, BackupUnderWay& under_way) {
  check_all(options);
  std::string base = options.parent;
  if (base == "latest") base = hub.newest_backup(options.pull.vm_name, options.pull.repository_id);
  for (size_t at = 0; at < options.layers.size(); ++at) {
    PullOptions layer = options.pull;
    layer.disks = options.layers[at];
    layer.base = base;
    if (!options.checkpoints.empty()) layer.checkpoint = options.checkpoints[at];
    base = pull(layer, hub, under_way);
  }
}

}  // namespace

int run_adopt(const AdoptOptions& options) {
  return run_backup_command(
      options.pull, [&](Hub& hub, BackupUnderWay& under_way) { adopt(options, hub, under_way); });
}

}  // namespace app
