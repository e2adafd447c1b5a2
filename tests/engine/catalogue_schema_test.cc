// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/schema.h"

#include <array>
#include <fstream>

#include "tests/engine/catalogue_fixture.h"

namespace engine {
namespace {

class CatalogueSchema : public CatalogueTest {
 protected:
  /// Everything about tables, indices and views, as SQL.
  static std::vector<std::string> structure(Db& db) {
    std::vector<std::string> sql;
    Stmt select(db, "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY type, name");
    while (select.step()) sql.push_back(select.take<std::string>());
    return sql;
  }
  /// This varve's migrations and one that a later version may bring.
  static std::vector<const char*> with(const char* next) {
    std::vector<const char*> migrations(catalogue_migrations().begin(),
                                        catalogue_migrations().end());
    migrations.push_back(next);
    return migrations;
  }
};

TEST_F(CatalogueSchema, A27AnUpgradeKeepsWhatIsThere) {
  const Vm vm = add_vm("a");
  const Job job = backup(vm, BackupType::full, 1);
  close();
  Db db(path());
  ASSERT_EQ(schema_version(db), catalogue_migrations().size());
  const char* next = "ALTER TABLE job ADD COLUMN color TEXT NOT NULL DEFAULT 'blue'";
  migrate(db, with(next), catalogue_views());
  EXPECT_EQ(schema_version(db), catalogue_migrations().size() + 1);
  Stmt select(db, "SELECT id, color FROM job");
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.take<std::string>(), job.id);
  EXPECT_EQ(select.take<std::string>(), "blue");
  EXPECT_TRUE(Stmt(db, "SELECT * FROM backup_jobs").step());
  EXPECT_TRUE(integrity_problems(db).empty());
}

TEST_F(CatalogueSchema, A27EveryReleasedSchemaIsLiftedToThePresentOne) {
  close();
  Db fresh(":memory:");
  migrate(fresh, catalogue_migrations(), catalogue_views());
  for (size_t released = 0; released < catalogue_migrations().size(); ++released) {
    Db old(":memory:");
    migrate(old, catalogue_migrations().first(released), {});
    migrate(old, catalogue_migrations(), catalogue_views());
    EXPECT_EQ(structure(old), structure(fresh)) << "from schema " << released;
  }
}

TEST_F(CatalogueSchema, AnUpgradeKnowsWhatOlderProofsMakeOfBackups) {
  const auto prove = [&](const JobDisk& disk, VerificationResult result) {
    ImageVerification proof;
    proof.image_id = disk.image_id;
    proof.verified_at = now();
    proof.result = result;
    catalogue().verifications.put(proof);
  };
  const Vm vm = add_vm("a", {2000});
  const Job proven = backup(vm, BackupType::full, 1);
  prove(proven.disks[0], VerificationResult::sound);
  const Job unproven = backup(vm, BackupType::incremental, 2);
  prove(backup(vm, BackupType::incremental, 3).disks[0], VerificationResult::damaged);
  backup(vm, BackupType::incremental, 4);
  close();
  {
    Db db(path());  // as it was before these columns
    db.exec(
        "DROP INDEX job_good; DROP INDEX job_proven; DROP INDEX job_not_completed;"
        "DROP INDEX job_deleting; DROP INDEX verification_by_result;"
        "ALTER TABLE job DROP COLUMN proven; ALTER TABLE job DROP COLUMN distrusted;"
        "CREATE INDEX verification_damaged ON verification (image_id) WHERE result = 'damaged';"
        "PRAGMA user_version = 11");
  }
  open();
  const Vm lifted = catalogue().vms.list_ages().at(0);
  EXPECT_EQ(lifted.last_good_at, unproven.completed_at);
  EXPECT_EQ(lifted.last_verified_at, proven.completed_at);
}

TEST_F(CatalogueSchema, AViewThatAnotherVarveMadeIsMadeAnewAndOnesOwnAreLeftAlone) {
  close();
  Db db(path());
  const std::vector<std::string> wanted = structure(db);
  db.exec("DROP VIEW backup_jobs; CREATE VIEW backup_jobs AS SELECT id FROM job");
  migrate(db, catalogue_migrations(), catalogue_views());
  EXPECT_EQ(structure(db), wanted);
  const auto changes = [&] {
    Stmt select(db, "PRAGMA schema_version");
    select.step();
    return select.take<uint64_t>();
  };
  const uint64_t before = changes();
  migrate(db, catalogue_migrations(), catalogue_views());
  EXPECT_EQ(changes(), before);
}

TEST_F(CatalogueSchema, AFailedUpgradeLeavesTheFileAsItWas) {
  close();
  Db db(path());
  const std::vector<std::string> before = structure(db);
  const char* broken = "CREATE TABLE half (x) ; CREATE TABLE half (x)";
  EXPECT_THROW(migrate(db, with(broken), catalogue_views()), DbError);
  EXPECT_EQ(structure(db), before);
  EXPECT_EQ(schema_version(db), catalogue_migrations().size());
}

TEST_F(CatalogueSchema, ANewerFileIsRefused) {
  close();
  {
    Db db(path());
    db.exec("PRAGMA user_version = 999");
  }
  try {
    open();
    FAIL();
  } catch (const DbError& error) {
    EXPECT_NE(std::string(error.what()).find("has schema 999, made by a newer varve"),
              std::string::npos);
  }
}

TEST_F(CatalogueSchema, AnotherProgramsDatabaseIsRefusedAndUntouched) {
  close();
  const std::string other = path() + ".other";
  {
    Db db(other);
    db.exec("CREATE TABLE theirs (x)");
  }
  EXPECT_THROW(Catalogue{other}, DbError);
  Db db(other);
  EXPECT_EQ(structure(db).size(), 1u);
}

TEST_F(CatalogueSchema, ADamagedFileIsReported) {
  EXPECT_TRUE(catalogue().integrity_problems().empty());
  add_vm("a");
  close();
  {
    Db db(path());
    db.exec("PRAGMA foreign_keys = OFF");
    db.exec("DELETE FROM vm");
  }
  open();
  EXPECT_FALSE(catalogue().integrity_problems().empty());
}

TEST_F(CatalogueSchema, CommitsAreDurable) {
  Db db(path());
  Stmt journal(db, "PRAGMA journal_mode");
  ASSERT_TRUE(journal.step());
  EXPECT_EQ(journal.take<std::string>(), "wal");
  const auto synchronous = [&] {
    Stmt pragma(db, "PRAGMA synchronous");
    pragma.step();
    return pragma.take<int>();
  };
  { Tx tx(db, Durability::lazy); }
  EXPECT_EQ(synchronous(), 1);
  { Tx tx(db); }
  EXPECT_EQ(synchronous(), 2);
}

}  // namespace
}  // namespace engine
