// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string_view>

namespace engine {

/// What a repository's file system can do beyond what every backup needs. Each that is missing has
/// a consequence and keeps no backup from being made.
struct StorageAbilities {
  bool direct_io = false;
  bool allocate_ahead = false;
  bool punch_holes = false;
  bool locks = false;
  bool symbolic_links = false;

  bool operator==(const StorageAbilities&) const = default;
};

/// One of them: its name in the API, what the system calls it, its member, and what its lack means.
struct StorageAbility {
  std::string_view name, system_name;
  bool StorageAbilities::*member;
  std::string_view when_missing;
};

inline constexpr std::array<StorageAbility, 5> kStorageAbilities = {{
    {"direct_io", "O_DIRECT", &StorageAbilities::direct_io,
     "data goes through the page cache: more CPU time and memory for each byte"},
    {"allocate_ahead", "fallocate", &StorageAbilities::allocate_ahead,
     "files grow write by write: slower, and a full disk is noticed later"},
    {"punch_holes", "FALLOC_FL_PUNCH_HOLE", &StorageAbilities::punch_holes,
     "space of zeroed and trimmed data is not given back to the file system"},
    {"locks", "open-file-description locks", &StorageAbilities::locks,
     "nothing keeps qemu or a second varve away from an image, and writes of a killed process may "
     "land after those of its successor"},
    {"symbolic_links", "", &StorageAbilities::symbolic_links,
     "the repository has no links to the newest points"},
}};

}  // namespace engine
