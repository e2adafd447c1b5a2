// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/schema.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <array>

namespace engine {
namespace {

/// "varv": PRAGMA application_id, so that no other program's database is taken for a catalogue.
constexpr uint32_t kApplicationId = 0x76617276;

// Times are seconds since 1970; the views show them as RFC 3339. Empty text means "none".
constexpr const char* kSchema1 = R"sql(
CREATE TABLE repository (
  id                 TEXT    NOT NULL PRIMARY KEY CHECK (id <> ''),
  name               TEXT    NOT NULL UNIQUE CHECK (name <> ''),
  type               TEXT    NOT NULL CHECK (type IN ('local', 'nfs', 'cifs', 'smb')),
  enabled            INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  config             TEXT    NOT NULL,
  directory          TEXT    NOT NULL,
  is_immutable       INTEGER NOT NULL CHECK (is_immutable IN (0, 1)),
  min_retention_days INTEGER NOT NULL CHECK (min_retention_days >= 0),
  total_bytes        INTEGER,
  used_bytes         INTEGER,
  available_bytes    INTEGER,
  measured_at        INTEGER,
  created_at         INTEGER NOT NULL,
  updated_at         INTEGER NOT NULL
) STRICT;

CREATE TABLE vm (
  context_id       TEXT    NOT NULL PRIMARY KEY,
  vm_name          TEXT    NOT NULL UNIQUE CHECK (vm_name <> ''),
  safe_name        TEXT    NOT NULL UNIQUE CHECK (safe_name <> ''),
  vm_path          TEXT    NOT NULL,
  inventory_name   TEXT    NOT NULL,
  vcenter_host     TEXT    NOT NULL,
  credentials_kind TEXT    NOT NULL CHECK (credentials_kind IN ('none', 'reference', 'inline')),
  credentials_ref  TEXT    NOT NULL,
  vmware_vm_id     TEXT    NOT NULL,
  datacenter       TEXT    NOT NULL,
  power_state      TEXT    NOT NULL,
  os_type          TEXT    NOT NULL,
  created_at       INTEGER NOT NULL,
  updated_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX vm_by_path ON vm (vm_path);
CREATE INDEX vm_by_inventory_name ON vm (inventory_name);

CREATE TABLE vm_disk (
  id             INTEGER NOT NULL PRIMARY KEY,
  context_id     TEXT    NOT NULL REFERENCES vm (context_id) ON DELETE CASCADE,
  disk_key       INTEGER NOT NULL CHECK (disk_key >= 0),
  disk_index     INTEGER NOT NULL CHECK (disk_index >= 0),
  capacity_bytes INTEGER NOT NULL CHECK (capacity_bytes > 0),
  unit_number    INTEGER,
  label          TEXT    NOT NULL,
  vmdk_path      TEXT    NOT NULL,
  datastore      TEXT    NOT NULL,
  removed        INTEGER NOT NULL CHECK (removed IN (0, 1)),
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  UNIQUE (context_id, disk_key),
  UNIQUE (context_id, disk_index)
) STRICT;

-- One per (VM, repository): counts that outlive the jobs.
CREATE TABLE backup_context (
  id                 TEXT    NOT NULL PRIMARY KEY,
  context_id         TEXT    NOT NULL REFERENCES vm (context_id) ON DELETE CASCADE,
  repository_id      TEXT    NOT NULL REFERENCES repository (id) ON DELETE CASCADE,
  total_backups_run  INTEGER NOT NULL DEFAULT 0,
  successful_backups INTEGER NOT NULL DEFAULT 0,
  failed_backups     INTEGER NOT NULL DEFAULT 0,
  last_backup_id     TEXT    NOT NULL DEFAULT '',
  last_backup_type   TEXT    NOT NULL DEFAULT '',
  last_backup_at     INTEGER,
  created_at         INTEGER NOT NULL,
  updated_at         INTEGER NOT NULL,
  UNIQUE (context_id, repository_id)
) STRICT;

CREATE TABLE job (
  row                INTEGER NOT NULL PRIMARY KEY,
  id                 TEXT    NOT NULL UNIQUE,
  context_id         TEXT    NOT NULL REFERENCES vm (context_id),
  repository_id      TEXT    NOT NULL REFERENCES repository (id),
  vm_name            TEXT    NOT NULL,
  vm_path            TEXT    NOT NULL,
  vcenter_host       TEXT    NOT NULL,
  vmware_vm_id       TEXT    NOT NULL,
  policy_id          TEXT    NOT NULL,
  type               TEXT    NOT NULL CHECK (type IN ('full', 'incremental', 'differential')),
  state              TEXT    NOT NULL CHECK (state IN ('preparing', 'running', 'finalizing',
                                                       'completed', 'failed', 'cancelled')),
  tags               TEXT    NOT NULL,
  warnings           TEXT    NOT NULL,
  nbd_targets        TEXT    NOT NULL,
  error_message      TEXT    NOT NULL,
  created_at         INTEGER NOT NULL,
  started_at         INTEGER,
  decided_at         INTEGER,           -- finalizing since; becomes completed_at
  completed_at       INTEGER,
  deleting           INTEGER NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1)),
  current_phase      TEXT    NOT NULL DEFAULT '',
  bytes_transferred  INTEGER NOT NULL DEFAULT 0,   -- this and the next four: the client's words
  total_bytes        INTEGER NOT NULL DEFAULT 0,
  transfer_speed_bps INTEGER NOT NULL DEFAULT 0,
  eta_seconds        INTEGER NOT NULL DEFAULT 0,
  progress_percent   REAL    NOT NULL DEFAULT 0,
  last_telemetry_at  INTEGER,
  samples_recorded   INTEGER NOT NULL DEFAULT 0,
  samples_halved     INTEGER NOT NULL DEFAULT 0,
  speed_sum_bps      REAL    NOT NULL DEFAULT 0,
  speed_peak_bps     INTEGER NOT NULL DEFAULT 0,
  speed_min_bps      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX job_one_active_per_vm ON job (context_id)
  WHERE state IN ('preparing', 'running', 'finalizing');
CREATE INDEX job_by_time ON job (created_at DESC, row DESC);
CREATE INDEX job_by_vm ON job (context_id, created_at DESC, row DESC);

CREATE TABLE job_disk (
  id                    INTEGER NOT NULL PRIMARY KEY,
  job_id                TEXT    NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  disk_index            INTEGER NOT NULL,
  disk_key              INTEGER NOT NULL,
  capacity_bytes        INTEGER NOT NULL CHECK (capacity_bytes > 0),
  unit_number           INTEGER,
  vmdk_path             TEXT    NOT NULL,
  datastore             TEXT    NOT NULL,
  state                 TEXT    NOT NULL CHECK (state IN ('pending', 'transferring', 'sealing',
                                                          'sealed', 'completed', 'failed')),
  type                  TEXT    NOT NULL CHECK (type IN ('full', 'incremental')),
  image_id              TEXT    NOT NULL UNIQUE,
  image_path            TEXT    NOT NULL,
  parent_image_id       TEXT    NOT NULL,
  parent_job_id         TEXT    NOT NULL,
  parent_change_id      TEXT    NOT NULL,
  handed_out_change_id  TEXT    NOT NULL DEFAULT '',
  change_id             TEXT    NOT NULL DEFAULT '',
  export_name           TEXT    NOT NULL UNIQUE,
  port                  INTEGER NOT NULL DEFAULT 0,
  bytes_received        INTEGER NOT NULL DEFAULT 0,
  bytes_zeroed          INTEGER NOT NULL DEFAULT 0,
  bytes_elided          INTEGER NOT NULL DEFAULT 0,
  bytes_stored          INTEGER NOT NULL DEFAULT 0,
  covered_bytes         INTEGER NOT NULL DEFAULT 0,
  sampled_zero_requests INTEGER NOT NULL DEFAULT 0,
  sampled_zero_bytes    INTEGER NOT NULL DEFAULT 0,
  ever_connected        INTEGER NOT NULL DEFAULT 0 CHECK (ever_connected IN (0, 1)),
  file_bytes            INTEGER NOT NULL DEFAULT 0,
  allocated_bytes       INTEGER NOT NULL DEFAULT 0,
  generation            INTEGER NOT NULL DEFAULT 0,   -- this and the next two: by the decision
  position              INTEGER NOT NULL DEFAULT 0,
  sidecar               TEXT    NOT NULL DEFAULT '',  -- its exact bytes, until published
  error_message         TEXT    NOT NULL DEFAULT '',
  created_at            INTEGER NOT NULL,
  completed_at          INTEGER,
  UNIQUE (job_id, disk_index),
  CHECK ((type = 'full') = (parent_image_id = ''))
) STRICT;

CREATE TABLE chain (
  id            TEXT    NOT NULL PRIMARY KEY,
  context_id    TEXT    NOT NULL REFERENCES vm (context_id),
  repository_id TEXT    NOT NULL REFERENCES repository (id),
  disk_index    INTEGER NOT NULL,
  generation    INTEGER NOT NULL CHECK (generation > 0),
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (context_id, repository_id, disk_index, generation)
) STRICT;

-- A published image. Position 0 is the full, each later point's parent is the one before it.
CREATE TABLE point (
  image_id        TEXT    NOT NULL PRIMARY KEY REFERENCES job_disk (image_id),
  chain_id        TEXT    NOT NULL REFERENCES chain (id),
  position        INTEGER NOT NULL CHECK (position >= 0),
  parent_image_id TEXT    UNIQUE REFERENCES point (image_id),
  UNIQUE (chain_id, position),
  CHECK ((position = 0) = (parent_image_id IS NULL))
) STRICT;

CREATE TABLE sample (
  id               INTEGER NOT NULL PRIMARY KEY,
  job_id           TEXT    NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  seconds          INTEGER NOT NULL,
  bytes_per_second INTEGER NOT NULL,
  percent          REAL    NOT NULL,
  phase            TEXT    NOT NULL,
  source           TEXT    NOT NULL CHECK (source IN ('client', 'server'))
) STRICT;
CREATE INDEX sample_by_job ON sample (job_id, id);

-- Names that were ever given out: job ids, export names and image ids are not given out twice,
-- also when their rows are gone.
CREATE TABLE used_name (name TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
)sql";

/// What the test of the repository found: a JSON object of booleans, '' before the first.
constexpr const char* kSchemaAbilities =
    "ALTER TABLE repository ADD COLUMN abilities TEXT NOT NULL DEFAULT ''";

/// What the marker file of the repository's directory says; '' before varve has seen one.
constexpr const char* kSchemaMarker =
    "ALTER TABLE repository ADD COLUMN marker_id TEXT NOT NULL DEFAULT ''";

/// Which image is whose, whatever its name (own_image.h).
constexpr const char* kSchemaImageUuid =
    "ALTER TABLE job_disk ADD COLUMN image_uuid TEXT NOT NULL DEFAULT ''";

/// Points that somebody works with, and the overlays of those who write.
constexpr const char* kSchemaRestores = R"sql(
CREATE TABLE restore (
  id               TEXT    NOT NULL PRIMARY KEY,
  job_id           TEXT    NOT NULL REFERENCES job (id),
  mode             TEXT    NOT NULL CHECK (mode IN ('read-only', 'writable')),
  state            TEXT    NOT NULL CHECK (state IN ('making', 'ready', 'dropping')),
  created_at       INTEGER NOT NULL,
  expires_at       INTEGER,
  size_limit_bytes INTEGER
) STRICT;
CREATE INDEX restore_by_job ON restore (job_id);
CREATE TABLE restore_disk (
  restore_id  TEXT    NOT NULL REFERENCES restore (id) ON DELETE CASCADE,
  disk_index  INTEGER NOT NULL,
  image_id    TEXT    NOT NULL REFERENCES job_disk (image_id),
  export_name TEXT    NOT NULL,
  PRIMARY KEY (restore_id, disk_index)
) STRICT;
CREATE INDEX restore_by_export ON restore_disk (export_name);
)sql";

/// Copies of restores outside the repository; the last one of each.
constexpr const char* kSchemaPromotions = R"sql(
CREATE TABLE promotion (
  restore_id   TEXT    NOT NULL PRIMARY KEY REFERENCES restore (id) ON DELETE CASCADE,
  path         TEXT    NOT NULL,
  format       TEXT    NOT NULL CHECK (format IN ('raw', 'qcow2')),
  state        TEXT    NOT NULL CHECK (state IN ('copying', 'completed', 'failed', 'cancelled')),
  total_bytes  INTEGER NOT NULL,
  copied_bytes INTEGER NOT NULL,
  error        TEXT    NOT NULL,
  started_at   INTEGER NOT NULL,
  ended_at     INTEGER
) STRICT;
)sql";

/// Who writes a backup's disks.
constexpr const char* kSchemaClient =
    "ALTER TABLE job ADD COLUMN client TEXT NOT NULL DEFAULT 'node' "
    "CHECK (client IN ('node', 'external'))";

/// The manifest of each image, what its parent was, and when it was last proven.
constexpr const char* kSchemaManifest = R"sql(
ALTER TABLE job_disk ADD COLUMN sums_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE job_disk ADD COLUMN parent_root TEXT NOT NULL DEFAULT '';
CREATE TABLE verification (
  image_id      TEXT    NOT NULL PRIMARY KEY REFERENCES job_disk (image_id) ON DELETE CASCADE,
  verified_at   INTEGER NOT NULL,
  result        TEXT    NOT NULL CHECK (result IN ('sound', 'damaged', 'without_manifest')),
  data_bytes    INTEGER NOT NULL,
  zero_bytes    INTEGER NOT NULL,
  damaged_bytes INTEGER NOT NULL,
  problem       TEXT    NOT NULL,
  damaged       TEXT    NOT NULL   -- the first ranges, as JSON
) STRICT;
)sql";

/// What libqcow has read of each image, and what the written data looks like, by samples.
constexpr const char* kSchemaProof = R"sql(
ALTER TABLE verification ADD COLUMN second_reader TEXT;
ALTER TABLE job_disk ADD COLUMN judged_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_disk ADD COLUMN incompressible_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job_disk ADD COLUMN zero_data_bytes INTEGER NOT NULL DEFAULT 0;
)sql";

/// Transfers that were interrupted and go on in another job.
constexpr const char* kSchemaResume = R"sql(
ALTER TABLE job ADD COLUMN keep_partial INTEGER NOT NULL DEFAULT 0 CHECK (keep_partial IN (0, 1));
ALTER TABLE job ADD COLUMN resumes TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN kept INTEGER NOT NULL DEFAULT 0 CHECK (kept IN (0, 1));
ALTER TABLE job_disk ADD COLUMN resumed_bytes INTEGER NOT NULL DEFAULT 0;
)sql";

/// How often a good point of a VM is expected; NULL: as often as the server says of all, 0: never.
/// What is damaged makes backups that are not good.
constexpr const char* kSchemaInterval = R"sql(
ALTER TABLE vm ADD COLUMN expected_interval_seconds INTEGER
  CHECK (expected_interval_seconds >= 0);
CREATE INDEX verification_damaged ON verification (image_id) WHERE result = 'damaged';
)sql";

/// What the proofs of its images make of a backup, kept by standing.cc, so that a look at all VMs
/// reads one entry of an index for each. The indexes on few rows let all be counted by counting the
/// exceptions.
constexpr const char* kSchemaStanding = R"sql(
DELETE FROM verification WHERE image_id NOT IN (SELECT image_id FROM point);
ALTER TABLE job ADD COLUMN proven INTEGER NOT NULL DEFAULT 0 CHECK (proven IN (0, 1));
ALTER TABLE job ADD COLUMN distrusted INTEGER NOT NULL DEFAULT 0 CHECK (distrusted IN (0, 1));
UPDATE job SET proven = 1
  WHERE id IN (SELECT d.job_id FROM verification v JOIN job_disk d ON d.image_id = v.image_id)
  AND NOT EXISTS (SELECT 1 FROM job_disk d WHERE d.job_id = job.id AND NOT EXISTS
    (SELECT 1 FROM verification v WHERE v.image_id = d.image_id AND v.result = 'sound'));
UPDATE job SET distrusted = 1
  WHERE id IN (SELECT d.job_id FROM verification v
    JOIN point damaged ON damaged.image_id = v.image_id
    JOIN point p ON p.chain_id = damaged.chain_id AND p.position >= damaged.position
    JOIN job_disk d ON d.image_id = p.image_id WHERE v.result = 'damaged');
CREATE INDEX job_good ON job (context_id, created_at DESC, row DESC, completed_at)
  WHERE state = 'completed' AND deleting = 0 AND distrusted = 0;
CREATE INDEX job_proven ON job (context_id, created_at DESC, row DESC, completed_at)
  WHERE state = 'completed' AND deleting = 0 AND distrusted = 0 AND proven = 1;
CREATE INDEX job_not_completed ON job (state) WHERE state <> 'completed' AND deleting = 0;
CREATE INDEX job_deleting ON job (row) WHERE deleting = 1;
DROP INDEX verification_damaged;
CREATE INDEX verification_by_result ON verification (result, image_id);
)sql";

constexpr std::array<const char*, 12> kMigrations = {
    kSchema1,        kSchemaAbilities,  kSchemaMarker,   kSchemaImageUuid,
    kSchemaRestores, kSchemaPromotions, kSchemaClient,   kSchemaManifest,
    kSchemaProof,    kSchemaResume,     kSchemaInterval, kSchemaStanding};

}  // namespace

std::span<const char* const> catalogue_migrations() { return kMigrations; }

uint32_t schema_version(Db& db) {
  return Stmt(db, "PRAGMA user_version").first<uint32_t>().value_or(0);
}

namespace {

uint32_t application_id(Db& db) {
  return Stmt(db, "PRAGMA application_id").first<uint32_t>().value_or(0);
}

bool has_tables(Db& db) { return Stmt(db, "SELECT 1 FROM sqlite_schema").step(); }

void make_views(Db& db, std::span<const char* const> views) {
  Stmt old(db, "SELECT name FROM sqlite_schema WHERE type = 'view'");
  for (const std::string& name : old.all<std::string>()) {
    db.exec(fmt::format("DROP VIEW \"{}\"", name));
  }
  for (const char* sql : views) db.exec(sql);
}

/// A statement as SQLite keeps it.
std::string_view trimmed(std::string_view sql) {
  constexpr std::string_view kSpace = " \n";
  const size_t begin = sql.find_first_not_of(kSpace);
  return begin == sql.npos ? "" : sql.substr(begin, sql.find_last_not_of(kSpace) + 1 - begin);
}

/// Views hold no data, so they follow the program without a migration.
bool are_made(Db& db, std::span<const char* const> views) {
  Stmt select(db, "SELECT sql FROM sqlite_schema WHERE type = 'view'");
  const std::vector<std::string> made = select.all<std::string>();
  return std::ranges::all_of(views, [&](const char* view) {
    return std::ranges::find(made, trimmed(view)) != made.end();
  });
}

}  // namespace

void migrate(Db& db, std::span<const char* const> migrations, std::span<const char* const> views) {
  Tx tx(db);
  const uint32_t from = schema_version(db);
  if (from > migrations.size()) {
    throw DbError(SQLITE_ERROR, fmt::format("catalogue '{}' has schema {}, made by a newer varve; "
                                            "this one knows schema {}",
                                            db.path(), from, migrations.size()));
  }
  if (application_id(db) != kApplicationId && (from != 0 || has_tables(db))) {
    throw DbError(SQLITE_NOTADB, fmt::format("'{}' is not a catalogue of varve's", db.path()));
  }
  if (from == migrations.size() && are_made(db, views)) return;
  for (const char* sql : migrations.subspan(from)) db.exec(sql);
  make_views(db, views);
  db.exec(fmt::format("PRAGMA application_id = {}", kApplicationId));
  db.exec(fmt::format("PRAGMA user_version = {}", migrations.size()));
  tx.commit();
}

void require_schema(Db& db, std::span<const char* const> migrations) {
  if (application_id(db) != kApplicationId) {
    throw DbError(SQLITE_NOTADB, fmt::format("'{}' is not a catalogue of varve's", db.path()));
  }
  if (schema_version(db) == migrations.size()) return;
  throw DbError(SQLITE_ERROR,
                fmt::format("catalogue '{}' has schema {}, this varve knows schema {}; "
                            "start `varve serve` once to bring it up to date",
                            db.path(), schema_version(db), migrations.size()));
}

std::vector<std::string> integrity_problems(Db& db) {
  std::vector<std::string> problems;
  for (Stmt check(db, "PRAGMA integrity_check"); check.step();) {
    std::string text = check.take<std::string>();
    if (text != "ok") problems.push_back(std::move(text));
  }
  for (Stmt check(db, "PRAGMA foreign_key_check"); check.step();) {
    std::string table = check.take<std::string>();
    problems.push_back(
        fmt::format("row {} of {} names a missing row", check.take<int64_t>(), table));
  }
  return problems;
}

}  // namespace engine
