// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/restores.h"

#include <fmt/format.h>

#include "engine/catalogue/tables.h"
#include "engine/values/layout.h"

namespace engine {

void RestoreCatalogue::insert(const Restore& restore) {
  Tx tx(db_);
  insert_row(db_, "restore", kRestoreTable, restore);
  for (RestoreDisk disk : restore.disks) {
    disk.restore_id = restore.id;
    insert_row(db_, "restore_disk", kRestoreDiskTable, disk);
  }
  tx.commit();
}

void RestoreCatalogue::set_state(std::string_view id, RestoreState state) {
  Tx tx(db_);
  Stmt(db_, "UPDATE restore SET state = ? WHERE id = ?", state, id).run();
  tx.commit();
}

void RestoreCatalogue::put_promotion(const Promotion& promotion) {
  Tx tx(db_);
  Stmt(db_, "DELETE FROM promotion WHERE restore_id = ?", promotion.restore_id).run();
  insert_row(db_, "promotion", kPromotionTable, promotion);
  tx.commit();
}

void RestoreCatalogue::erase(std::string_view id) {
  Tx tx(db_);
  Stmt(db_, "DELETE FROM restore WHERE id = ?", id).run();
  tx.commit();
}

std::vector<Restore> RestoreCatalogue::select(std::string_view where, std::string_view value) {
  std::vector<Restore> restores = select_rows(
      db_, kRestoreTable,
      fmt::format("FROM restore WHERE ?1 = ?1 AND {} ORDER BY created_at DESC, id", where), value);
  for (Restore& restore : restores) {
    restore.disks =
        select_rows(db_, kRestoreDiskTable,
                    "FROM restore_disk WHERE restore_id = ? ORDER BY disk_index", restore.id);
    restore.promotion = first_of(
        select_rows(db_, kPromotionTable, "FROM promotion WHERE restore_id = ?", restore.id));
    // Beside the image, wherever that is by now.
    const bool writes = restore.mode == RestoreMode::writable;
    for (RestoreDisk& disk : restore.disks) {
      disk.path = writes ? overlay_path(disk.path, restore.id, disk.disk_index) : "";
    }
  }
  return restores;
}

std::optional<Restore> RestoreCatalogue::find(std::string_view id) {
  return first_of(select("id = ?1", id));
}

std::optional<Restore> RestoreCatalogue::by_export(std::string_view export_name) {
  return first_of(select(
      "mode = 'writable' AND id IN (SELECT restore_id FROM restore_disk WHERE export_name = ?1)",
      export_name));
}

std::vector<Restore> RestoreCatalogue::list() { return select("1", ""); }

std::vector<Restore> RestoreCatalogue::of_job(std::string_view job_id) {
  return select("job_id = ?1", job_id);
}

}  // namespace engine
