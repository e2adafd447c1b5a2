// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/values/requests.h"
#include "engine/values/views.h"
#include "io/runtime.h"
#include "nbd/export.h"

namespace engine {

/// What of an exported point differs from an older one, which one of its metadata contexts names;
/// everything when none does, because the two share nothing. A page ends after `query.limit`
/// ranges, or after some time. On the export's thread.
io::Task<ChangesView> read_changes(const nbd::Export& exported, ChangesQuery query);

}  // namespace engine
