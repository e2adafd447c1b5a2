// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/verifications.h"

#include "engine/catalogue/tables.h"

namespace engine {

void VerificationCatalogue::put(const ImageVerification& verification) {
  Tx tx(db_);
  Stmt(db_, "DELETE FROM verification WHERE image_id = ?", verification.image_id).run();
  const auto image =
      Stmt(db_, "SELECT count(*) FROM job_disk WHERE image_id = ?", verification.image_id)
          .first<uint64_t>();
  if (image.value_or(0) > 0) insert_row(db_, "verification", kVerificationTable, verification);
  tx.commit();
}

std::optional<ImageVerification> VerificationCatalogue::find(std::string_view image_id) {
  return first_of(
      select_rows(db_, kVerificationTable, "FROM verification WHERE image_id = ?", image_id));
}

}  // namespace engine
