// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tests/crash/disk.h"
#include "tests/crash/files.h"
#include "tests/crash/replay.h"
#include "tests/crash/rng.h"

/// What storage, or another program, may do to an image's tables.
namespace crash {

enum class DamageKind : uint8_t {
  zeroed_sector,
  noisy_sector,
  flipped_bits,
  low_refcount,   ///< of one cluster: one less, or 0
  high_refcount,  ///< of one cluster
  entry_word,     ///< one entry of a table becomes another word
  cleared_seal,   ///< as `qemu-img check -r all` leaves a published image
  unreadable,     ///< a sector gives EIO
};

struct Damage {
  DamageKind kind = DamageKind::zeroed_sector;
  Part part = Part::header;
  uint64_t at = 0;  ///< bytes into the file
  std::string text() const;
};

/// Damages one place in the tables of the image at `path`. Of an unreadable sector only the place
/// is told: it belongs to Files::unreadable.
Damage do_damage(State& state, const std::string& path, Rng& rng);

}  // namespace crash
