// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "engine/values/types.h"
#include "io/file.h"
#include "io/task.h"

/// Whose file an image's name stands for. A name alone proves nothing: an older copy of the
/// catalogue and a clock that was put back can give one out twice.
namespace engine {

enum class NamedFile : uint8_t {
  missing,
  ours,        ///< its record holds the identity that the row was given before the image was made
  of_another,  ///< an image with another identity, or with none
  unreadable,  ///< no image: its making, or its disk, was interrupted
};

/// Looks into the header of `path`. Rows of earlier versions know no identity: to them every image
/// is theirs. Throws what the file system answers.
io::Task<NamedFile> look_at_image(io::FileSystem& files, std::string path, std::string image_uuid);

/// Looks at the manifest `path` of an image by its end. One that is not whole is unreadable.
io::Task<NamedFile> look_at_manifest(io::FileSystem& files, std::string path,
                                     std::string image_uuid);

}  // namespace engine
