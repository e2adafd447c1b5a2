// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "engine/catalogue/db.h"

/// What proofs make of backups: the columns `proven` and `distrusted` of job.
///
/// Invariant: `proven` when each of the job's images was last found sound; `distrusted` when one of
/// them, or one below it in its chain, was last found damaged. A child may have stored all of the
/// damage anew: only a verification's report knows, so it is distrusted. Proofs and new points
/// alone change this: what lies on a point is deleted before it. Inside the caller's transaction.
namespace engine {

/// An image was found to be something else than before.
void note_proof(Db& db, std::string_view image_id, bool was_damaged, bool is_damaged);

/// A job has a new point at the end of a chain.
void note_point(Db& db, std::string_view job_id, std::string_view chain_id);

}  // namespace engine
