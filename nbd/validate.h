// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "nbd/export.h"
#include "nbd/negotiation.h"
#include "nbd/protocol.h"
#include "nbd/refusal.h"

namespace nbd {

/// All refusals of requests, in one place: why `request` is not done, or nothing.
///
/// The order of the checks is part of the behaviour: payload length, command, flags, sticky failure
/// (of what changes), job over (ESHUTDOWN), read-only or sealed (EPERM), range. Spec: C1–C18,
/// D7, X9, X-5. On the export's thread.
std::optional<Refusal> validate(const Request& request, const Export& exported,
                                const Negotiation& negotiation);

}  // namespace nbd
