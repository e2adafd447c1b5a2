// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/options.h"

/// The commands of the binary. Each returns the exit status, 0 in good order, and throws
/// UsageError or what failed.
namespace app {

int run_serve(const ServeOptions& options);
int run_check(const CheckOptions& options);
int run_create(const CreateOptions& options);
int run_nbd(const NbdOptions& options);
/// `varve nbd --list`: what a server has, as qemu-nbd prints it.
int list_exports(const NbdOptions& options);
int run_rebuild(const RebuildOptions& options);
int run_restore(const RestoreOptions& options);
int run_pull(const PullOptions& options);
int run_adopt(const AdoptOptions& options);
int run_token(const TokenOptions& options);
int run_read_image(const ReadImageOptions& options);
int run_config(const ConfigOptions& options);
int run_catalogue_backup(const CatalogueBackupOptions& options);
int run_verify(const VerifyOptions& options);

}  // namespace app
