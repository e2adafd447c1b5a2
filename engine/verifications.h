#pragma once

#include <string>
#include <vector>

#include "engine/jobs/core.h"
#include "engine/values/requests.h"

/// Verifications: images proven to be what was sent, in the background. Control thread.
///
/// One runs at a time, because the disks are the limit. The catalogue keeps the last proof of each
/// image; the tasks themselves are kept until varve ends, the last ones. Spec: docs/verify.md.
namespace engine {

/// Returns once it has started; it continues in Core::background.
Verification begin_verification(Core& core, const NewVerification& request);
std::vector<Verification> list_verifications(const Verifications& known);
Verification find_verification(const Verifications& known, const std::string& id);
/// Returns once it has ended.
io::Task<Verification> cancel_verification(const Verifications& known, std::string id);

}  // namespace engine
