// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "engine/values/json_text.h"
#include "engine/values/time_text.h"

struct sqlite3;
struct sqlite3_stmt;

/// A thin RAII layer over SQLite's C interface: Db, Stmt, Tx.
///
/// Invariant: what is not committed by a Tx is rolled back; every failure throws DbError with the
/// SQL and SQLite's own text. Spec: sqlite.org/c3ref. One Db belongs to one thread.
namespace engine {

class DbError : public std::runtime_error {
 public:
  DbError(int code, const std::string& what) : std::runtime_error(what), code_(code) {}
  /// SQLite's extended result code.
  int code() const { return code_; }
  /// The file is no database, or a broken one.
  bool is_damage() const;
  /// The rows would contradict each other.
  bool is_contradiction() const;

 private:
  int code_;
};

enum class DbAccess : uint8_t {
  read_write,  ///< opens or creates the file (":memory:" for none), with WAL and foreign keys
  read_only,   ///< opens what is there, also while another process writes; changes nothing
};

class Db {
 public:
  explicit Db(const std::string& path, DbAccess access = DbAccess::read_write);

  /// Runs statements without parameters and without results.
  void exec(const std::string& sql);

  int64_t last_insert_id() const;
  /// Rows changed by the last statement.
  int64_t changes() const;
  const std::string& path() const { return path_; }

  sqlite3* handle() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* handle) const noexcept;
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

/// One prepared statement with its parameters bound, in the order of its question marks.
///
///   Stmt select(db, "SELECT id, size FROM disk WHERE job_id = ?", job_id);
///   while (select.step()) use(select.take<std::string>(), select.take<uint64_t>());
class Stmt {
 public:
  template <typename... Values>
  Stmt(Db& db, std::string_view sql, const Values&... values) : Stmt(Prepared{}, db, sql) {
    (bind(values), ...);
  }

  /// True while there is a row; take() then starts at its first column.
  bool step();
  /// For a statement without rows. Gives the number of rows changed.
  int64_t run();

  /// The next column of the row. An optional is empty for NULL; text is "" and a number 0 then.
  template <typename T>
  T take() {
    if constexpr (is_optional<T>::value) {
      if (next_is_null()) {
        ++column_;
        return std::nullopt;
      }
      return take<typename T::value_type>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      return take_text();
    } else if constexpr (std::is_same_v<T, Time>) {
      return from_unix_seconds(take_integer());
    } else if constexpr (std::is_same_v<T, bool>) {
      return take_integer() != 0;
    } else if constexpr (std::is_enum_v<T>) {
      return from_text<T>(take_text()).value();
    } else if constexpr (std::is_same_v<T, Tags>) {
      return tags_from_json(take_text());
    } else if constexpr (std::is_same_v<T, std::vector<Warning>>) {
      return warnings_from_json(take_text());
    } else if constexpr (std::is_same_v<T, std::vector<Damage>>) {
      return damages_from_json(take_text());
    } else if constexpr (std::is_same_v<T, SecondReading>) {
      return second_reading_from_json(take_text());
    } else if constexpr (std::floating_point<T>) {
      return take_real();
    } else {
      static_assert(std::integral<T>);
      return static_cast<T>(take_integer());
    }
  }
  /// Whether take() would find NULL.
  bool next_is_null() const;

  /// The first column of the first row; nothing when there is no row.
  template <typename T>
  std::optional<T> first() {
    if (!step()) return std::nullopt;
    return take<T>();
  }
  /// The first column of every row.
  template <typename T>
  std::vector<T> all() {
    std::vector<T> values;
    while (step()) values.push_back(take<T>());
    return values;
  }

  /// Binds the next parameter, or those of a whole row. Counts above 2^63 throw.
  template <typename T>
  void bind(const T& value) {
    if constexpr (is_optional<T>::value) {
      if (value) {
        bind(*value);
      } else {
        bind_null();
      }
    } else if constexpr (std::is_same_v<T, Time>) {
      bind_integer(unix_seconds(value));
    } else if constexpr (std::is_same_v<T, bool>) {
      bind_integer(value ? 1 : 0);
    } else if constexpr (std::unsigned_integral<T>) {
      bind_unsigned(value);
    } else if constexpr (std::integral<T>) {
      bind_integer(value);
    } else if constexpr (std::floating_point<T>) {
      bind_real(value);
    } else if constexpr (std::is_enum_v<T>) {
      bind_text(to_text(value));
    } else if constexpr (requires { to_json(value); }) {
      bind_text(to_json(value));
    } else if constexpr (requires(Stmt & to) { value.bind_to(to); }) {
      value.bind_to(*this);  // a row: columns.h
    } else {
      bind_text(std::string_view(value));
    }
  }

 private:
  template <typename T>
  struct is_optional : std::false_type {};
  template <typename T>
  struct is_optional<std::optional<T>> : std::true_type {};

  struct Prepared {};
  Stmt(Prepared, Db& db, std::string_view sql);

  int64_t take_integer();
  double take_real();
  std::string take_text();

  void bind_null();
  void bind_integer(int64_t value);
  void bind_unsigned(uint64_t value);
  void bind_real(double value);
  void bind_text(std::string_view value);
  void require_bound(int result) const;

  DbError failure(int code, const char* verb) const;

  struct Finalize {
    void operator()(sqlite3_stmt* handle) const noexcept;
  };
  Db& db_;
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
  int parameter_ = 0;
  int column_ = 0;
};

/// What a commit promises. `lazy` may lose the transaction in a power loss, never tear it; for
/// progress only.
enum class Durability : uint8_t { durable, lazy };

/// A write transaction, BEGIN IMMEDIATE; rolled back unless committed. Not nested.
class Tx {
 public:
  explicit Tx(Db& db, Durability durability = Durability::durable);
  Tx(const Tx&) = delete;
  Tx& operator=(const Tx&) = delete;
  ~Tx();

  /// Returns once the transaction is on the disk (when durable).
  void commit();

 private:
  Db& db_;
  bool open_ = true;
};

/// A part of a Tx that can fail by itself: what it has changed is undone unless it is kept.
class Savepoint {
 public:
  explicit Savepoint(Db& db);
  Savepoint(const Savepoint&) = delete;
  Savepoint& operator=(const Savepoint&) = delete;
  ~Savepoint();

  void keep();

 private:
  Db& db_;
  bool open_ = true;
};

/// One statement, as a transaction of its own. Gives the number of rows changed.
template <typename... Values>
int64_t write(Db& db, Durability durability, std::string_view sql, const Values&... values) {
  Tx tx(db, durability);
  const int64_t changed = Stmt(db, sql, values...).run();
  tx.commit();
  return changed;
}

}  // namespace engine
