// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/runtime.h"
#include "io/task.h"
#include "qcow/chain/chain.h"
#include "qcow/check/check.h"
#include "qcow/format/header.h"

namespace qcow {

/// In the order of gravity; the worst one decides.
enum class Verdict : uint8_t {
  clean,
  leaks,        ///< space is wasted, no data is in danger
  errors,       ///< damage, or a chain that is not what its images say
  cannot_open,  ///< this image or a parent of it is refused or cannot be read
};

/// What is known of one image of a chain.
struct ImageReport {
  std::string path;
  std::string refusal;           ///< why it cannot be opened; "" else, and then the rest is known
  std::optional<Header> header;  ///< none when cluster 0 is refused
  CheckResult tables;
  std::vector<std::string> problems;  ///< of the chain: seal, record, sidecar
  std::vector<std::string> notes;     ///< no reason to worry

  bool published() const { return header && header->record && header->record->published(); }
  Verdict verdict() const;
};

struct ChainReport {
  std::vector<ImageReport> images;  ///< the one asked for, then its parents, nearest first

  Verdict verdict() const;
};

/// Checks an image and all its parents: each one's tables (check.h), and whether the chain is what
/// the images' records say: no link missing, each parent the one its child was made on (RF20),
/// every parent sealed and untouched since (BC6).
///
/// What is wrong is an answer; only a failure of the machine itself (memory) throws. A parent that
/// cannot be opened ends the chain, and says so. Reader's locks are held meanwhile.
io::Task<ChainReport> check_chain(io::Runtime runtime, std::string path, ChainOptions options);

}  // namespace qcow
