// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/verifications.h"

#include "engine/catalogue/standing.h"
#include "engine/catalogue/tables.h"

namespace engine {

void VerificationCatalogue::put(const ImageVerification& verification) {
  Tx tx(db_);
  const std::optional<ImageVerification> before = find(verification.image_id);
  Stmt(db_, "DELETE FROM verification WHERE image_id = ?", verification.image_id).run();
  if (Stmt(db_, "SELECT 1 FROM point WHERE image_id = ?", verification.image_id).step()) {
    insert_row(db_, "verification", kVerificationTable, verification);
    note_proof(db_, verification.image_id, before && before->result == VerificationResult::damaged,
               verification.result == VerificationResult::damaged);
  }
  tx.commit();
}

std::optional<ImageVerification> VerificationCatalogue::find(std::string_view image_id) {
  return first_of(
      select_rows(db_, kVerificationTable, "FROM verification WHERE image_id = ?", image_id));
}

}  // namespace engine
