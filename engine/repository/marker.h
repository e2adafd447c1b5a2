// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "io/runtime.h"

/// The file that says which repository a directory is, so that the empty mount point of a file
/// system that is not mounted, or another disk in its place, is not taken for the repository.
///
/// Invariant: a directory gets one id, once; a moved or copied repository keeps it. Control thread.
namespace engine {

/// The id that the directory's marker holds; nothing when there is no marker. Throws
/// std::runtime_error when it cannot be read.
io::Task<std::optional<std::string>> read_marker(io::FileSystem& files, std::string directory);

/// Makes the marker, durably, unless there is one. Returns the id that it holds.
io::Task<std::string> make_marker(io::Runtime runtime, std::string directory);

/// Throws std::runtime_error when neither the image nor the marker of a directory above it is
/// there: then its file system is not mounted, and what is not there says nothing about the image.
io::Task<void> require_mounted(io::FileSystem& files, std::string image_path);

}  // namespace engine
