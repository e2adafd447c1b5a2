// SPDX-License-Identifier: Apache-2.0
#include "app/pull/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <stdexcept>

#include "app/numbers.h"
#include "app/server_options.h"
#include "io/counted.h"
#include "nbd/uri.h"

namespace app {
namespace {

constexpr std::string_view kLibvirt = "libvirt:";
constexpr uint64_t kRequestBytesMin = 4096, kRequestBytesMax = 1 << 20;

struct OfDisk {
  std::optional<uint32_t> index;
  std::string value;
};

/// "3=text"; without a number before the first '=' it is of no particular disk.
OfDisk taken_apart(const std::string& text) {
  uint32_t index = 0;
  const size_t equals = text.find('=');
  if (equals != std::string::npos) {
    const char* const end = text.data() + equals;
    const auto [stop, error] = std::from_chars(text.data(), end, index);
    if (error == std::errc() && stop == end) return {index, text.substr(equals + 1)};
  }
  return {std::nullopt, text};
}

PullDisk& disk_of(std::vector<PullDisk>& disks, const char* option, const OfDisk& given) {
  for (PullDisk& disk : disks) {
    if (disk.index == given.index) return disk;
  }
  throw UsageError(fmt::format("{} {}={}: there is no --disk {}=SOURCE", option, *given.index,
                               given.value, *given.index));
}

std::vector<PullDisk> disks_of(const PullArguments& arguments) {
  std::vector<PullDisk> disks;
  for (const std::string& text : arguments.disks) {
    const OfDisk given = taken_apart(text);
    if (!given.index || given.value.empty()) {
      throw UsageError(fmt::format("--disk {}: write N=SOURCE, for example 0=disk.raw", text));
    }
    const bool twice = std::any_of(disks.begin(), disks.end(),
                                   [&](const PullDisk& disk) { return disk.index == given.index; });
    if (twice) throw UsageError(fmt::format("--disk {} is given twice", *given.index));
    try {
      if (nbd::is_uri(given.value)) nbd::parse_uri(given.value);
    } catch (const std::invalid_argument& error) {
      throw UsageError(fmt::format("--disk {}: {}", *given.index, error.what()));
    }
    disks.push_back({.index = *given.index, .source = given.value});
  }
  std::sort(disks.begin(), disks.end(),
            [](const PullDisk& a, const PullDisk& b) { return a.index < b.index; });
  for (const std::string& text : arguments.bitmaps) {
    const OfDisk given = taken_apart(text);
    if (given.index) {
      disk_of(disks, "--bitmap", given).bitmap = given.value;
      continue;
    }
    for (PullDisk& disk : disks) {
      if (disk.bitmap.empty()) disk.bitmap = given.value;
    }
  }
  for (const std::string& text : arguments.changed) {
    const OfDisk given = taken_apart(text);
    if (!given.index) throw UsageError(fmt::format("--changed {}: write N=FILE", text));
    disk_of(disks, "--changed", given).changed = given.value;
  }
  return disks;
}

/// "1%" or "0.01".
double parse_share(const std::string& text) {
  const bool percent = text.ends_with('%');
  const char* const end = text.data() + text.size() - (percent ? 1 : 0);
  double share = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, share);
  if (percent) share /= 100;
  if (error != std::errc() || stop != end || !(share > 0) || share > 1) {
    throw UsageError(fmt::format("--sample {}: write a share from above 0% to 100%", text));
  }
  return share;
}

void check_modes(const PullOptions& options) {
  if (options.full && (options.check_tracking || options.sampled_share > 0)) {
    throw UsageError("--full makes a new chain: nothing is compared with the newest point");
  }
  if (options.sampled_share > 0 && (options.into_chain || options.check_tracking)) {
    throw UsageError("--sample is for incrementals: --into-chain compares everything");
  }
}

/// What is wanted is the server's to say, and the new point is of the newest one's state.
void check_repair(const PullArguments& arguments, const PullOptions& options) {
  if (options.full || options.into_chain || options.check_tracking || options.trim_source ||
      !arguments.sample.empty() || !arguments.bitmaps.empty() || !arguments.changed.empty() ||
      !options.since.empty() || !options.checkpoint.empty() || !options.resume.empty()) {
    throw UsageError(
        "--repair sends what the server says is damaged: --full, --into-chain, --since, --bitmap, "
        "--changed, --sample, --check-tracking, --checkpoint, --resume and --trim-source do not go "
        "with it");
  }
}

void check_changes(const PullOptions& options) {
  for (const PullDisk& disk : options.disks) {
    if (!disk.bitmap.empty() && !disk.changed.empty()) {
      throw UsageError(
          fmt::format("disk {}: --bitmap and --changed exclude each other", disk.index));
    }
    if (!disk.bitmap.empty() && !nbd::is_uri(disk.source)) {
      throw UsageError(
          fmt::format("disk {}: --bitmap needs an NBD server as its source; "
                      "--changed takes a list from a file",
                      disk.index));
    }
    const bool tells_changes = !disk.bitmap.empty() || !disk.changed.empty();
    if (!disk.bitmap.empty() && options.since.empty() && !options.full) {
      throw UsageError(
          "--bitmap needs --since, the checkpoint that the bitmap counts from, or --full");
    }
    if (options.check_tracking && !tells_changes) {
      throw UsageError(
          fmt::format("--check-tracking: disk {} has neither --bitmap nor --changed to be checked",
                      disk.index));
    }
    if (options.check_tracking && options.since.empty()) {
      throw UsageError(
          "--check-tracking needs --since, the checkpoint that the changes are against");
    }
    if (!options.since.empty() && !options.full && !tells_changes) {
      throw UsageError(fmt::format(
          "--since: disk {} has neither --bitmap nor --changed to tell what has changed",
          disk.index));
    }
  }
}

/// Everything about the disks is libvirt's to say.
void check_libvirt(const PullArguments& arguments, const PullOptions& options) {
  if (options.libvirt_domain.empty()) throw UsageError("libvirt: write libvirt:DOMAIN");
  if (!arguments.disks.empty() || !arguments.bitmaps.empty() || !arguments.changed.empty() ||
      !options.checkpoint.empty() || !options.since.empty() || options.trim_source) {
    throw UsageError(
        "libvirt:DOMAIN knows its disks, bitmaps and checkpoints: --disk, --bitmap, --changed, "
        "--checkpoint, --since and --trim-source do not go with it");
  }
}

}  // namespace

void declare_adopt(CLI::App& command, AdoptArguments& arguments) {
  PullOptions& options = arguments.options.pull;
  command
      .add_option("FILE", arguments.files,
                  "QCOW2 images, each after the one that it stands on; N=FILE for disk N of a VM\n"
                  "with several, as many for each")
      ->required()
      ->type_name("FILE...");
  command.add_option("--vm", options.vm_name, "its name; a VM that is not known is registered")
      ->type_name("NAME")
      ->required();
  add_number(command, "--disk", arguments.disk, 0, UINT32_MAX, "disk index (default 0)");
  command
      .add_option(
          "--parent", arguments.options.parent,
          "the point that the first images stand on: a backup id, or latest; it must be the\n"
          "newest")
      ->type_name("POINT");
  command
      .add_option("--checkpoint", arguments.options.checkpoints,
                  "names the state of a layer, for --since of a later pull; once for each layer")
      ->type_name("ID")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--repository", options.repository_id, "its id (default 1)")->type_name("ID");
  command.add_flag("--json", options.json, "print one JSON object a line, errors too");
  declare_server(command, options.server, options.token);
  declare_tls_client(command, options.tls);
  command.footer(
      "Each layer becomes a backup. The images are checked first, read and left as they are; what\n"
      "becomes of them is written by varve, so clusters of any size, compressed ones and version "
      "2\n"
      "are accepted. The images must not change meanwhile.\n"
      "Exit status: as of varve pull.");
}

void declare_pull(CLI::App& command, PullArguments& arguments) {
  PullOptions& options = arguments.options;
  command
      .add_option("VM", options.vm_name,
                  "its name; a VM that is not known is registered. libvirt:DOMAIN takes all disks\n"
                  "of a domain at one instant, and what has changed since its newest point")
      ->required();
  command
      .add_option("--disk", arguments.disks,
                  "disk N (from 0) is read from SOURCE: a raw file, a block device, an NBD export\n"
                  "(nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, both with nbds), or the\n"
                  "disk in an image (qcow2:FILE); once for each disk of the VM")
      ->type_name("N=SOURCE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--bitmap", arguments.bitmaps,
                  "the source's dirty bitmap that tells what has changed: context\n"
                  "qemu:dirty-bitmap:NAME; of all disks, or with N= of one")
      ->type_name("[N=]NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option(
          "--changed", arguments.changed,
          "a list of what has changed, as nbdkit's extentlist or `nbdinfo --map` print it;\n"
          "without --since: a list of what holds data")
      ->type_name("N=FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option("--checkpoint", options.checkpoint,
                  "a name for the state that is read, for --since of the next pull")
      ->type_name("ID");
  command
      .add_option("--since", options.since,
                  "the checkpoint that the changes are against; refused unless the newest point\n"
                  "is of it")
      ->type_name("ID");
  command.add_flag("--full", options.full, "take everything, whatever --since says");
  command.add_flag("--into-chain", options.into_chain,
                   "take everything, and store what differs from the newest point");
  command.add_flag(
      "--check-tracking", options.check_tracking,
      "the same, and say what differs although --bitmap or --changed does not name it");
  command
      .add_option(
          "--resume", options.resume,
          "go on with a failed pull, the same otherwise: what has arrived is not sent again.\n"
          "The sources must be as they were then: snapshots, say")
      ->type_name("BACKUP");
  command.add_flag_function(
      "--no-keep", [&options](int64_t) { options.keep_partial = false; },
      "when it fails, leave nothing at the server");
  command
      .add_option("--server-patience", arguments.server_patience,
                  "how long the server may be away before the pull fails (default 2m)")
      ->type_name("DURATION");
  command
      .add_option("--sample", arguments.sample,
                  "compare that much of what is called clean with the newest point, as 1%")
      ->type_name("SHARE");
  command.add_flag(
      "--repair", options.repair,
      "send only what verifications have found damaged in the newest point, where the\n"
      "source still holds the same content: a new point that is as the newest was made");
  command
      .add_option("--connect", options.libvirt_connect,
                  "of libvirt:DOMAIN: libvirt's URI (default: libvirt's own)")
      ->type_name("URI");
  command.add_flag_function(
      "--no-freeze", [&options](int64_t) { options.libvirt_freeze = false; },
      "of libvirt:DOMAIN: do not freeze the guest's file systems by its agent");
  command.add_option("--repository", options.repository_id, "its id (default 1)")->type_name("ID");
  command.add_flag("--trim-source", options.trim_source,
                   "NBD sources only: trim what is durable in the backup; for disposable copies");
  command.add_option("--rate", arguments.rate, "bytes a second at most, with K, M or G")
      ->type_name("SIZE");
  command
      .add_option("--request-size", arguments.request_size,
                  "bytes of one request (default and most 1M)")
      ->type_name("SIZE");
  declare_parallel(command, options.connections, options.requests);
  command.add_flag("--json", options.json, "print one JSON object a line, errors too");
  declare_server(command, options.server, options.token);
  declare_tls_client(command, options.tls);
  command.footer(
      "All disks become one backup: it is published whole, or not at all.\n"
      "Exit status: 0 published, 1 failed, 2 wrong usage, 10 no such repository, 11 refused "
      "(--since\n"
      "is not of the newest point, a backup of the VM is running, disks that do not fit), 12 "
      "refused\n"
      "by access, 130 interrupted. With --repair also: 0 nothing is wanted, 1 nothing can be "
      "healed,\n"
      "10 no such VM.");
}

AdoptOptions checked(AdoptArguments arguments) {
  AdoptOptions options = std::move(arguments.options);
  complete_server(options.pull.server, options.pull.token);
  if (options.pull.vm_name.empty()) throw UsageError("varve adopt: --vm is empty");
  std::map<uint32_t, std::vector<PullDisk>> by_disk;
  for (const std::string& text : arguments.files) {
    const OfDisk given = taken_apart(text);
    const uint32_t index = given.index.value_or(arguments.disk);
    by_disk[index].push_back({.index = index,
                              .source = std::string(kImagePrefix) + absolute_path(given.value),
                              .layer_only = true});
  }
  const size_t count = by_disk.begin()->second.size();
  options.layers.resize(count);
  for (auto& [index, images] : by_disk) {
    if (images.size() != count) {
      throw UsageError(fmt::format("disk {} has {} and disk {} has {}: a backup has all disks",
                                   by_disk.begin()->first, io::counted(count, "image"), index,
                                   images.size()));
    }
    for (size_t at = 0; at < count; ++at) options.layers[at].push_back(std::move(images[at]));
  }
  if (!options.checkpoints.empty() && options.checkpoints.size() != count) {
    throw UsageError(fmt::format("--checkpoint is given {} for {}",
                                 io::counted(options.checkpoints.size(), "time"),
                                 io::counted(count, "layer")));
  }
  return options;
}

PullOptions checked(PullArguments arguments) {
  PullOptions options = std::move(arguments.options);
  complete_server(options.server, options.token);
  if (options.vm_name.empty()) throw UsageError("varve pull: VM is empty");
  if (options.repair) {
    check_repair(arguments, options);
    options.keep_partial = false;  // what it sends is little, and known by its checksums
  }
  options.disks = disks_of(arguments);
  if (options.vm_name.starts_with(kLibvirt)) {
    options.libvirt_domain = options.vm_name.substr(kLibvirt.size());
    options.vm_name = options.libvirt_domain;
    check_libvirt(arguments, options);
  } else {
    if (options.disks.empty()) throw UsageError("varve pull: --disk N=SOURCE is needed");
    check_changes(options);
  }
  if (!arguments.server_patience.empty()) {
    options.server_patience = parse_duration(arguments.server_patience);
  }
  if (!options.resume.empty() &&
      (!options.keep_partial || options.trim_source || !options.libvirt_domain.empty())) {
    throw UsageError(
        "--resume needs a source that is as it was: not libvirt:DOMAIN, nor with --trim-source or "
        "--no-keep");
  }
  if (!arguments.rate.empty()) options.bytes_per_second = parse_size(arguments.rate);
  if (!arguments.request_size.empty()) {
    options.request_bytes = parse_size(arguments.request_size);
    if (options.request_bytes < kRequestBytesMin || options.request_bytes > kRequestBytesMax ||
        options.request_bytes % kRequestBytesMin != 0) {
      throw UsageError("--request-size must be a multiple of 4K, from 4K to 1M");
    }
  }
  if (!arguments.sample.empty()) options.sampled_share = parse_share(arguments.sample);
  check_modes(options);
  return options;
}

}  // namespace app
