// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/db.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <limits>

namespace engine {
namespace {

constexpr int kBusyTimeoutMilliseconds = 5000;

DbError open_failure(const std::string& path, int code, sqlite3* handle) {
  return {code, fmt::format("open catalogue '{}': {}", path,
                            handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(code))};
}

}  // namespace

bool DbError::is_damage() const {
  const int primary = code_ & 0xff;  // the rest says where
  return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
}

bool DbError::is_contradiction() const { return (code_ & 0xff) == SQLITE_CONSTRAINT; }

void Db::Close::operator()(sqlite3* handle) const noexcept { sqlite3_close_v2(handle); }

Db::Db(const std::string& path, DbAccess access) : path_(path) {
  sqlite3* opened = nullptr;
  const bool writes = access == DbAccess::read_write;
  const int flags = writes ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
  const int result = sqlite3_open_v2(path.c_str(), &opened, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  handle_.reset(opened);
  if (result != SQLITE_OK) throw open_failure(path, result, opened);
  sqlite3_extended_result_codes(opened, 1);
  sqlite3_busy_timeout(opened, kBusyTimeoutMilliseconds);
  if (writes) {
    exec("PRAGMA journal_mode = WAL");
    exec("PRAGMA synchronous = FULL");
  }
  exec("PRAGMA foreign_keys = ON");
  exec("PRAGMA trusted_schema = OFF");
}

void Db::exec(const std::string& sql) {
  char* text = nullptr;
  const int result = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, &text);
  if (result == SQLITE_OK) return;
  const std::string cause = text != nullptr ? text : sqlite3_errstr(result);
  sqlite3_free(text);
  throw DbError(result, fmt::format("catalogue '{}': {} in: {}", path_, cause, sql));
}

int64_t Db::last_insert_id() const { return sqlite3_last_insert_rowid(handle_.get()); }
int64_t Db::changes() const { return sqlite3_changes64(handle_.get()); }

void Stmt::Finalize::operator()(sqlite3_stmt* handle) const noexcept { sqlite3_finalize(handle); }

Stmt::Stmt(Prepared, Db& db, std::string_view sql) : db_(db) {
  sqlite3_stmt* prepared = nullptr;
  const int result =
      sqlite3_prepare_v2(db.handle(), sql.data(), static_cast<int>(sql.size()), &prepared, nullptr);
  if (result != SQLITE_OK) {
    throw DbError(result, fmt::format("catalogue '{}': {} in: {}", db.path(),
                                      sqlite3_errmsg(db.handle()), sql));
  }
  handle_.reset(prepared);
}

DbError Stmt::failure(int code, const char* verb) const {
  return {code, fmt::format("catalogue '{}': {}: {} in: {}", db_.path(), verb,
                            sqlite3_errmsg(db_.handle()), sqlite3_sql(handle_.get()))};
}

bool Stmt::step() {
  column_ = 0;
  const int result = sqlite3_step(handle_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  throw failure(result, "step");
}

int64_t Stmt::run() {
  while (step()) {
  }
  return db_.changes();
}

bool Stmt::next_is_null() const {
  return sqlite3_column_type(handle_.get(), column_) == SQLITE_NULL;
}

int64_t Stmt::take_integer() { return sqlite3_column_int64(handle_.get(), column_++); }
double Stmt::take_real() { return sqlite3_column_double(handle_.get(), column_++); }

std::string Stmt::take_text() {
  const unsigned char* text = sqlite3_column_text(handle_.get(), column_);
  const int bytes = sqlite3_column_bytes(handle_.get(), column_++);
  if (text == nullptr) return {};
  return {reinterpret_cast<const char*>(text), static_cast<size_t>(bytes)};
}

void Stmt::require_bound(int result) const {
  if (result != SQLITE_OK) throw failure(result, "bind");
}

void Stmt::bind_null() { require_bound(sqlite3_bind_null(handle_.get(), ++parameter_)); }

void Stmt::bind_integer(int64_t value) {
  require_bound(sqlite3_bind_int64(handle_.get(), ++parameter_, value));
}

void Stmt::bind_unsigned(uint64_t value) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw DbError(SQLITE_TOOBIG, fmt::format("catalogue '{}': {} does not fit in: {}", db_.path(),
                                             value, sqlite3_sql(handle_.get())));
  }
  bind_integer(static_cast<int64_t>(value));
}

void Stmt::bind_real(double value) {
  require_bound(sqlite3_bind_double(handle_.get(), ++parameter_, value));
}

void Stmt::bind_text(std::string_view value) {
  // A null pointer would bind NULL.
  const char* text = value.data() != nullptr ? value.data() : "";
  require_bound(sqlite3_bind_text64(handle_.get(), ++parameter_, text, value.size(),
                                    SQLITE_TRANSIENT, SQLITE_UTF8));
}

Tx::Tx(Db& db, Durability durability) : db_(db) {
  // synchronous may only change outside a transaction.
  db_.exec(durability == Durability::durable ? "PRAGMA synchronous = FULL"
                                             : "PRAGMA synchronous = NORMAL");
  db_.exec("BEGIN IMMEDIATE");
}

Tx::~Tx() {
  if (open_) sqlite3_exec(db_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Tx::commit() {
  db_.exec("COMMIT");
  open_ = false;
}

Savepoint::Savepoint(Db& db) : db_(db) { db_.exec("SAVEPOINT part"); }

Savepoint::~Savepoint() {
  if (!open_) return;
  sqlite3_exec(db_.handle(), "ROLLBACK TO part; RELEASE part", nullptr, nullptr, nullptr);
}

void Savepoint::keep() {
  db_.exec("RELEASE part");
  open_ = false;
}

}  // namespace engine
