// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

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

/// Whether the method promises to change nothing, so that no answer to it is worth a line.
bool only_reads(const Request& request);

/// How many lines strangers may cause: a hundred in a row and then one a second, so that whoever
/// has no token cannot fill the disk with refusals. Any thread.
class RefusalLines {
 public:
  /// Nothing when this refusal gets no line; else how many have got none since the last line.
  std::optional<uint64_t> take(engine::Time now);

 private:
  std::mutex mutex_;  // guards all below
  std::optional<engine::Time> refilled_;
  int64_t left_ = 0;
  uint64_t dropped_ = 0;
};

/// One JSON object, without a newline. `dropped` refusals before it have got no line.
std::string audit_line(const Request& request, const Match& found, const Access& access,
                       const Response& response, engine::Time at, uint64_t dropped = 0);

/// What a line looks like, for the documentation and its test.
Schema audit_schema();

}  // namespace api
