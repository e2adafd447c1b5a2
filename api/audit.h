// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "api/access.h"
#include "api/match.h"
#include "api/schema.h"
#include "engine/values/types.h"

/// The audit log: who changed what, and when. Spec: docs/http-access.md, "The audit log".
///
/// Invariant: no line has anything of a body, a query or a header, so none has a secret.
namespace api {

/// Whether the answer is worth a line: everything that changes something and was let in, and
/// everything but GET and HEAD that was not.
bool is_audited(const Request& request, const Match& found, const Access& access);

/// One JSON object, without a newline.
std::string audit_line(const Request& request, const Match& found, const Access& access,
                       const Response& response, engine::Time at);

/// What a line looks like, for the documentation and its test.
Schema audit_schema();

}  // namespace api
