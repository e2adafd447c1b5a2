// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/chain/layer.h"

namespace qcow {

struct ChainOptions;

/// Opens the parents of the image at `path` down to the one that has none, nearest first.
///
/// Judges every backing name and format (RF15, RF16), loops and depth (RF17), and whether each
/// parent is the image that its child was made on (RF20). On failure nothing stays open or locked.
io::Task<std::vector<std::unique_ptr<Layer>>> open_parents(io::Runtime runtime, std::string path,
                                                           Header header, ChainOptions options);

/// "nbd://…", "json:{…}": not the name of a file. Pure.
bool has_protocol_prefix(std::string_view backing_name);

/// Whether the absolute `path`, dots taken out, lies inside `root`; an empty root holds everything.
/// Pure.
bool is_inside(std::string_view path, std::string_view root);

}  // namespace qcow
