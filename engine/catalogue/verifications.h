// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "engine/catalogue/db.h"
#include "engine/values/types.h"

namespace engine {

/// When each image was last proven to be what was sent, and with what result. Part of Catalogue.
class VerificationCatalogue {
 public:
  explicit VerificationCatalogue(Db& db) : db_(db) {}

  /// In the place of an earlier one of the image; durable, with what it makes of backups
  /// (standing.h). Does nothing when the point has gone.
  void put(const ImageVerification& verification);

  std::optional<ImageVerification> find(std::string_view image_id);

 private:
  Db& db_;
};

}  // namespace engine
