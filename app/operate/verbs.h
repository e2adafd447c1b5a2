// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "app/operate/client.h"

/// The verbs that ask a running `varve serve`: what each can be told, and what carries it out. Each
/// run_ returns the exit status, and throws what failure_of() understands.
namespace app {

struct StatusOptions : ClientOptions {};
void declare_status(CLI::App& command, StatusOptions& options);
int run_status(const StatusOptions& options);

// ---- VMs ----

struct VmListOptions : ClientOptions {};
void declare_vm_list(CLI::App& command, VmListOptions& options);
int run_vm_list(const VmListOptions& options);

struct VmShowOptions : ClientOptions {
  std::string vm_name;
};
void declare_vm_show(CLI::App& command, VmShowOptions& options);
int run_vm_show(const VmShowOptions& options);

struct VmAddOptions : ClientOptions {
  std::string vm_name;
  std::vector<std::string> disks;  ///< "SIZE" or "KEY=SIZE", by index
  std::string vm_path, vcenter_host, secret;
  std::string expected_interval;  ///< "25h", "none" or "default"; "": as before
  bool replace = false, move = false;
};
void declare_vm_add(CLI::App& command, VmAddOptions& options);
int run_vm_add(const VmAddOptions& options);

struct VmSetOptions : ClientOptions {
  std::string vm_name;
  std::string expected_interval;  ///< "25h", "none" or "default"
};
void declare_vm_set(CLI::App& command, VmSetOptions& options);
int run_vm_set(const VmSetOptions& options);

struct VmRemoveOptions : ClientOptions {
  std::string vm_name;
  bool yes = false;
};
void declare_vm_remove(CLI::App& command, VmRemoveOptions& options);
int run_vm_remove(const VmRemoveOptions& options);

// ---- repositories ----

struct RepoListOptions : ClientOptions {};
void declare_repo_list(CLI::App& command, RepoListOptions& options);
int run_repo_list(const RepoListOptions& options);

struct RepoShowOptions : ClientOptions {
  std::string id;
};
void declare_repo_show(CLI::App& command, RepoShowOptions& options);
int run_repo_show(const RepoShowOptions& options);

struct RepoAddOptions : ClientOptions {
  std::string name, id, path, share, mount_point, type;
};
void declare_repo_add(CLI::App& command, RepoAddOptions& options);
int run_repo_add(const RepoAddOptions& options);

struct RepoTestOptions : ClientOptions {
  std::string id;
};
void declare_repo_test(CLI::App& command, RepoTestOptions& options);
int run_repo_test(const RepoTestOptions& options);

struct RepoRemoveOptions : ClientOptions {
  std::string id;
  bool yes = false;
};
void declare_repo_remove(CLI::App& command, RepoRemoveOptions& options);
int run_repo_remove(const RepoRemoveOptions& options);

// ---- backups and points ----

struct BackupOptions : ClientOptions {
  std::string vm_name, repository_id;
  bool full = false, incremental = false, wait = false;
  io::Duration patience = kFollowPatience;
};
void declare_backup(CLI::App& command, BackupOptions& options);
int run_backup(const BackupOptions& options);

struct WatchOptions : ClientOptions {
  std::string job;  ///< an id, or a VM whose backup runs
  io::Duration patience = kFollowPatience;
};
void declare_watch(CLI::App& command, WatchOptions& options);
int run_watch(const WatchOptions& options);

struct CancelOptions : ClientOptions {
  std::string job, reason;
};
void declare_cancel(CLI::App& command, CancelOptions& options);
int run_cancel(const CancelOptions& options);

struct ListOptions : ClientOptions {
  std::string vm_name;  ///< "": the newest point of every VM
};
void declare_list(CLI::App& command, ListOptions& options);
int run_list(const ListOptions& options);

struct ShowOptions : ClientOptions {
  std::string point;
};
void declare_show(CLI::App& command, ShowOptions& options);
int run_show(const ShowOptions& options);

struct DeleteOptions : ClientOptions {
  std::string point;
  bool cascade = false, yes = false;
};
void declare_delete(CLI::App& command, DeleteOptions& options);
int run_delete(const DeleteOptions& options);

}  // namespace app
