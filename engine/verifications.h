// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// Verifications: images proven to be what was sent, in the background. Control thread.
///
/// One runs at a time, because the disks are the limit. The catalogue keeps the last proof of each
/// image; the tasks themselves are kept until varve ends, the last ones. Spec: docs/verify.md.
namespace engine {

/// Returns once it has started; it continues in Core::background. One of the schedule makes room.
io::Task<Verification> begin_verification(Core& core, NewVerification request);
/// The same of `points`, which the schedule wants proven (scrub.h); nothing may be running.
std::shared_ptr<VerificationUnderWay> begin_scrub(Core& core, std::vector<Point> points);
/// The one that is running, or null.
std::shared_ptr<VerificationUnderWay> running_verification(const Verifications& known);
std::vector<Verification> list_verifications(const Verifications& known);
Verification find_verification(const Verifications& known, const std::string& id);
/// Returns once it has ended, or after kEndPatience: one whose storage hangs is still running then.
io::Task<Verification> cancel_verification(Core& core, std::string id);

}  // namespace engine
