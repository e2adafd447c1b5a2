// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/values/types.h"
#include "io/runtime.h"

/// The names of jobs, exports, images, VM contexts and chains.
///
/// Invariant: every name is made of [A-Za-z0-9._-], safe in a URL, a file name and an NBD target;
/// those of jobs and exports have at most 64 characters. The existing client takes a disk index
/// from the first "-disk<digits>-" of a job id, else from the "disk<digits>" at the end of an
/// export name: no job id contains the first, every export name ends in the second. Spec:
/// docs/jobs.md, "Names"; where files of these names lie: layout.h. Pure.
namespace engine {

/// `safe(vm_name)`: 1-40 characters; the name itself where it is harmless.
std::string safe_name(std::string_view vm_name);

/// The same with a longer digest, for a VM whose safe_name another one has already: 12 digits, or
/// more should that be taken too. `digits` is 12, 18 or 24.
std::string safe_name_with_digest(std::string_view vm_name, size_t digits);

/// What every job's name begins with, and no other name.
inline constexpr std::string_view kJobPrefix = "backup-";

/// Names of one second differ by `attempt`: none for 1, then -2, -3, ...
std::string job_name(std::string_view safe, Time created, uint32_t attempt = 1);
std::string export_name(std::string_view safe, Time created, uint32_t attempt, uint32_t disk_index);
/// The same with a secret of name_secret() in it, for exports that are opened by whoever knows
/// their names; `safe` is cut to what is left of 64 characters.
std::string export_name(std::string_view safe, Time created, uint32_t attempt, uint32_t disk_index,
                        std::string_view secret);
/// 20 characters of [a-z2-7], that is 100 random bits.
std::string name_secret(io::Random& random);
std::string image_name(std::string_view safe, Time created, uint32_t attempt, uint32_t disk_index);

/// "verification-<unix>-<n>"
inline constexpr std::string_view kVerificationPrefix = "verification-";

/// "restore-<safe>-<unix>-<secret>"; what its exports' names begin with, too.
inline constexpr std::string_view kRestorePrefix = "restore-";
std::string restore_name(std::string_view safe, Time created, std::string_view secret);

std::string context_name(std::string_view safe, Time registered);
/// "ctx-backup-<safe>-<unix>", of a (VM, repository).
std::string backup_context_name(std::string_view safe, Time created, uint32_t attempt = 1);
/// The `safe` in a VM context's name; "" when it is none.
std::string_view safe_name_of_context(std::string_view context_id);

/// Whether varve itself can have made that name of an image, a job or a VM context, which begin
/// with `prefix`: what was read from a repository's files may not lead out of the repository.
bool is_own_name(std::string_view name, std::string_view prefix);

/// "chain-<ctx>-disk<N>-<repository>-g<generation>", the catalogue's.
std::string chain_name(std::string_view context_id, uint32_t disk_index,
                       std::string_view repository_id, uint32_t generation);
/// "<ctx>-disk<N>-chain", the API's and chain.json's.
std::string shown_chain_name(std::string_view context_id, uint32_t disk_index);

}  // namespace engine
