// SPDX-License-Identifier: Apache-2.0
#include "engine/jobs/repository_files.h"

#include <fmt/format.h>

#include "engine/repository/chain_file.h"
#include "engine/values/layout.h"
#include "io/log.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

io::Task<void> remove_if_there(io::FileSystem& files, std::string path) {
  const auto status = co_await files.status(path, false);
  if (!status) co_return;
  co_await files.remove(path);
  const std::string directory = io::parent_path(path);
  co_await files.sync_directory(directory);
}

/// Into a directory that is there; a repository that is away gets nothing.
io::Task<void> write_if_other(io::Runtime runtime, std::string path, std::string text) {
  io::FileSystem& files = runtime.files;
  const std::string directory = io::parent_path(path);
  const auto there = co_await files.status(directory);
  if (!there) co_return;
  const auto status = co_await files.status(path, false);
  if (status && status->size == text.size()) {
    const std::string present = co_await io::read_text(files, path);
    if (present == text) co_return;
  }
  co_await io::replace_text(runtime, path, text);
}

std::string directory_of(Catalogue& catalogue, const std::string& repository_id) {
  const auto repository = catalogue.repositories.find(repository_id);
  return repository ? repository->directory : "";
}

io::Task<void> make_chain_file(Core& core, std::string context_id, std::string repository_id,
                               uint32_t disk_index) {
  const std::string repository = directory_of(*core.catalogue, repository_id);
  if (repository.empty()) co_return;
  const std::string path =
      fmt::format("{}/{}", disk_directory(repository, context_id, disk_index), kChainFileName);
  const auto generations = core.catalogue->points.chains(context_id, repository_id, disk_index);
  if (generations.empty()) {
    co_await remove_if_there(core.files(), path);
  } else {
    const std::string text = encode_chain_file(generations);
    co_await write_if_other(core.parts.home, path, text);
  }
  core.parts.reached("chain file");
}

io::Task<bool> leads_to(io::FileSystem& files, std::string link, std::string path) {
  const auto there = co_await files.status(link, true);
  if (!there) co_return false;
  const std::string at = co_await files.resolve(link);
  const std::string wanted = co_await files.resolve(path);
  co_return at == wanted;
}

/// Other people's files and directories of that name stay.
io::Task<void> remove_link(io::FileSystem& files, std::string link) {
  const auto status = co_await files.status(link, false);
  if (status && status->kind == io::FileKind::symlink) co_await remove_if_there(files, link);
}

/// `link` leads to `path` by the relative name `target`, so that the repository can be moved.
io::Task<void> make_link(io::Runtime runtime, std::string link, std::string target,
                         std::string path) {
  io::FileSystem& files = runtime.files;
  const auto aim = co_await files.status(path);
  if (!aim) co_return;
  const auto present = co_await files.status(link, false);
  if (present && present->kind != io::FileKind::symlink) {
    io::log(io::LogLevel::warning, "{} is not a link and is kept; no link leads to {}", link, path);
    co_return;
  }
  const bool done = co_await leads_to(files, link, path);
  if (done) co_return;
  const std::string temporary = io::temporary_path(runtime.random, link);
  co_await files.make_symlink(target, temporary);
  co_await files.rename(temporary, link, true);
  const std::string directory = io::parent_path(link);
  co_await files.sync_directory(directory);
}

io::Task<void> make_links(Core& core, std::string context_id, std::string repository_id,
                          uint32_t disk_index, uint32_t disk_key) {
  const std::string repository = directory_of(*core.catalogue, repository_id);
  const auto vm = core.catalogue->vms.find_context(context_id);
  if (repository.empty() || !vm) co_return;
  const std::string directory = disk_directory(repository, context_id, disk_index);
  const std::string latest = fmt::format("{}/{}", directory, kLatestLinkName);
  const std::string link = repository + "/" + disk_link_name(vm->safe_name, disk_key);
  const std::string image_link = image_file_name(link);  // of earlier versions
  co_await remove_link(core.files(), image_link);
  const auto newest = core.catalogue->points.newest(context_id, repository_id, disk_index);
  if (!newest) {
    co_await remove_link(core.files(), latest);
    co_await remove_link(core.files(), link);
    co_return;
  }
  const std::string image_name = image_file_name(newest->image_id);
  co_await make_link(core.parts.home, latest, image_name, newest->image_path);
  const std::string target = directory.substr(repository.size() + 1);
  co_await make_link(core.parts.home, link, target, directory);
}

io::Task<void> make_vm_file(Catalogue& catalogue, io::Runtime runtime, std::string context_id,
                            std::string repository_id) {
  const std::string repository = directory_of(catalogue, repository_id);
  const auto vm = catalogue.vms.find_context(context_id);
  if (repository.empty() || !vm) co_return;
  const std::string path = vm_file_path(repository, context_id);
  const std::string text = encode_vm_file(*vm);
  co_await write_if_other(runtime, path, text);
}

/// A failure is kept for later.
io::Task<void> derive(Unfinished& unfinished, std::string context_id, std::string repository_id,
                      io::Task<void> make) {
  try {
    co_await std::move(make);
  } catch (const std::exception& failure) {
    PLANTED_BUG(derived_file_fails_publish, throw)
    unfinished.add_context(repository_id, context_id, failure.what());
  }
}

}  // namespace

io::Task<void> refresh_disk_files(Core& core, std::string context_id, std::string repository_id,
                                  uint32_t disk_index, uint32_t disk_key) {
  io::Task<void> chain_file = make_chain_file(core, context_id, repository_id, disk_index);
  co_await derive(core.unfinished, context_id, repository_id, std::move(chain_file));
  io::Task<void> links = make_links(core, context_id, repository_id, disk_index, disk_key);
  co_await derive(core.unfinished, context_id, repository_id, std::move(links));
}

io::Task<void> refresh_vm_file(Core& core, std::string context_id, std::string repository_id) {
  io::Task<void> vm_file =
      make_vm_file(*core.catalogue, core.parts.home, context_id, repository_id);
  co_await derive(core.unfinished, context_id, repository_id, std::move(vm_file));
}

io::Task<void> repair_context_files(Core& core, std::string context_id, std::string repository_id) {
  const io::Grant turn = co_await core.turns.take(repository_id, context_id);
  const auto vm = core.catalogue->vms.find_context(context_id);
  if (!vm) co_return;
  for (const VmDisk& disk : vm->disks) {
    co_await refresh_disk_files(core, context_id, repository_id, disk.index, disk.key);
  }
  co_await refresh_vm_file(core, context_id, repository_id);
}

}  // namespace engine
