// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/db.h"

#include <gtest/gtest.h>

#include <limits>

namespace engine {
namespace {

class DbTest : public testing::Test {
 protected:
  DbTest() { db_.exec("CREATE TABLE t (n INTEGER, r REAL, s TEXT UNIQUE) STRICT"); }
  int64_t rows() {
    Stmt count(db_, "SELECT count(*) FROM t");
    count.step();
    return count.take<int64_t>();
  }
  Db db_{":memory:"};
};

TEST_F(DbTest, ValuesComeBackAsTheyWereBound) {
  const std::string text("a\0b", 3);
  Stmt(db_, "INSERT INTO t VALUES (?, ?, ?)", uint64_t{1} << 62, 1.5, text).run();
  Stmt(db_, "INSERT INTO t VALUES (?, ?, ?)", std::optional<int64_t>(), std::optional<double>(),
       std::string_view())
      .run();
  Stmt select(db_, "SELECT n, r, s FROM t ORDER BY rowid");
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.take<uint64_t>(), uint64_t{1} << 62);
  EXPECT_EQ(select.take<double>(), 1.5);
  EXPECT_EQ(select.take<std::string>(), text);
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.take<std::optional<int64_t>>(), std::nullopt);
  EXPECT_EQ(select.take<std::optional<double>>(), std::nullopt);
  EXPECT_EQ(select.take<std::optional<std::string>>(), std::optional<std::string>(""));
  EXPECT_FALSE(select.step());
}

TEST_F(DbTest, ACountAboveTheLargestIntegerIsRefused) {
  EXPECT_THROW(Stmt(db_, "INSERT INTO t (n) VALUES (?)", std::numeric_limits<uint64_t>::max()),
               DbError);
}

TEST_F(DbTest, AnUncommittedTransactionIsRolledBack) {
  {
    Tx tx(db_);
    Stmt(db_, "INSERT INTO t (n) VALUES (1)").run();
  }
  EXPECT_EQ(rows(), 0);
  {
    Tx tx(db_, Durability::lazy);
    Stmt(db_, "INSERT INTO t (n) VALUES (1)").run();
    tx.commit();
  }
  EXPECT_EQ(rows(), 1);
}

TEST_F(DbTest, AFailureNamesSqlAndCause) {
  Stmt(db_, "INSERT INTO t (s) VALUES ('x')").run();
  try {
    Stmt(db_, "INSERT INTO t (s) VALUES ('x')").run();
    FAIL();
  } catch (const DbError& error) {
    EXPECT_NE(std::string(error.what()).find("UNIQUE constraint failed: t.s"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("INSERT INTO t"), std::string::npos);
  }
  try {
    Stmt(db_, "SELECT nonsense FROM t");
    FAIL();
  } catch (const DbError& error) {
    EXPECT_NE(std::string(error.what()).find("no such column: nonsense"), std::string::npos);
  }
}

TEST(DbOpen, AnUnreachableFileIsNamed) {
  try {
    Db db("/nonexistent/catalogue.db");
    FAIL();
  } catch (const DbError& error) {
    EXPECT_NE(std::string(error.what()).find("'/nonexistent/catalogue.db'"), std::string::npos);
  }
}

}  // namespace
}  // namespace engine
