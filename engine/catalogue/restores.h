// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/catalogue/db.h"
#include "engine/values/types.h"

namespace engine {

/// Restores: which points are worked with, and by which overlays. On the catalogue's thread.
class RestoreCatalogue {
 public:
  explicit RestoreCatalogue(Db& db) : db_(db) {}

  /// With its disks, durable.
  void insert(const Restore& restore);
  void set_state(std::string_view id, RestoreState state);
  /// In the place of an earlier one of the same restore; durable.
  void put_promotion(const Promotion& promotion);
  /// Forgets it, its disks and its promotion.
  void erase(std::string_view id);

  std::optional<Restore> find(std::string_view id);
  /// The one that has an export of this name; of a writable one, whose name is its own.
  std::optional<Restore> by_export(std::string_view export_name);
  /// Newest first.
  std::vector<Restore> list();
  /// Of a backup.
  std::vector<Restore> of_job(std::string_view job_id);

 private:
  std::vector<Restore> select(std::string_view where, std::string_view value);

  Db& db_;
};

}  // namespace engine
