#include "engine/repository_files.h"

#include "engine/chain_file.h"
#include "engine/names.h"
#include "engine/storage.h"

namespace engine {
namespace {

io::Task<void> remove_if_there(io::FileSystem& files, std::string path) {
  const auto status = co_await files.status(path, false);
  if (!status) co_return;
  co_await files.remove(path);
  const std::string directory = io::parent_path(path);
  co_await files.sync_directory(directory);
}

std::string directory_of(Core& core, const std::string& repository_id) {
  const auto repository = core.catalogue->repositories.find(repository_id);
  return repository ? repository->directory : "";
}

}  // namespace

io::Task<void> refresh_chain_file(Core& core, std::string context_id, std::string repository_id,
                                  uint32_t disk_index) {
  const std::string repository = directory_of(core, repository_id);
  if (repository.empty()) co_return;
  const std::string directory = disk_directory(repository, context_id, disk_index);
  const std::string path = directory + "/chain.json";
  const auto generations = core.catalogue->points.chains(context_id, repository_id, disk_index);
  if (generations.empty()) {
    co_await remove_if_there(core.files(), path);
    co_return;
  }
  const auto status = co_await core.files().status(directory);
  if (!status) co_return;
  const std::string text = encode_chain_file(generations);
  co_await io::replace_text(core.parts.home, path, text);
}

io::Task<void> refresh_latest_link(Core& core, std::string context_id, std::string repository_id,
                                   uint32_t disk_index, uint32_t disk_key) {
  const std::string repository = directory_of(core, repository_id);
  const auto vm = core.catalogue->vms.find_context(context_id);
  if (repository.empty() || !vm) co_return;
  const std::string link = repository + "/" + latest_link_name(vm->safe_name, disk_key);
  const auto newest = core.catalogue->points.newest(context_id, repository_id, disk_index);
  if (!newest) {
    co_await remove_if_there(core.files(), link);
    co_return;
  }
  // Relative, so that the repository can be moved.
  std::string target = newest->image_path;
  if (target.starts_with(repository + "/")) target = target.substr(repository.size() + 1);
  const std::string temporary = io::temporary_path(core.parts.home.random, link);
  co_await core.files().make_symlink(target, temporary);
  co_await core.files().rename(temporary, link, true);
  co_await core.files().sync_directory(repository);
}

io::Task<void> write_vm_file(Core& core, std::string context_directory, Vm vm) {
  const std::string path = context_directory + "/vm.json";
  const std::string text = encode_vm_file(vm);
  co_await io::replace_text(core.parts.home, path, text);
}

}  // namespace engine
