// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace nbd {

/// What a connection negotiated, as far as it decides about requests and replies.
///
/// Invariant: extended headers come with all that structured replies mean.
struct Negotiation {
  bool structured_replies = false;
  bool extended_headers = false;
  bool has_contexts = false;  ///< of the export that is served

  /// BLOCK_STATUS may carry a payload that names contexts.
  bool status_filter() const { return extended_headers && has_contexts; }
};

}  // namespace nbd
