// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "engine/catalogue/db.h"

/// Rows as structs: which column holds which member, said once per table (tables.h).
///
///   constexpr auto kSample = columns<Sample>(col("seconds", &Sample::seconds),
///                                            col("phase", &Sample::phase));
///   insert_row(db, "sample", kSample, sample);
///   std::vector<Sample> old = select_rows(db, kSample, "FROM sample WHERE seconds < ?", 60);
///
/// Invariant: lists of columns, their placeholders, bind and take all follow the order of the
/// table, so that they cannot disagree.
namespace engine {

using SqlNames = std::vector<std::string_view>;
enum class Use : uint8_t { read, write };

/// A column, col(), or an expression that is only read, derived().
template <typename Row, typename Value>
struct Column {
  std::string_view sql;
  Value Row::*member;
  bool is_written;

  void names(Use use, SqlNames& into) const {
    if (use == Use::read || is_written) into.push_back(sql);
  }
  void bind(Stmt& to, const Row& row) const {
    if (is_written) to.bind(row.*member);
  }
  void take(Stmt& from, Row& row) const { row.*member = from.take<Value>(); }
};

template <typename Row, typename Value>
constexpr Column<Row, Value> col(std::string_view sql, Value Row::*member) {
  return {sql, member, true};
}
template <typename Row, typename Value>
constexpr Column<Row, Value> derived(std::string_view sql, Value Row::*member) {
  return {sql, member, false};
}

/// A column that is only written, because it follows from other members.
template <typename Row, typename Value>
struct Computed {
  std::string_view sql;
  Value (*of)(const Row&);

  void names(Use use, SqlNames& into) const {
    if (use == Use::write) into.push_back(sql);
  }
  void bind(Stmt& to, const Row& row) const { to.bind(of(row)); }
  void take(Stmt&, Row&) const {}
};

template <typename Row, typename Value>
constexpr Computed<Row, Value> computed(std::string_view sql, Value (*of)(const Row&)) {
  return {sql, of};
}

/// The columns of a member that is a struct. An optional one is only read, and there when its
/// first column is not NULL.
template <typename Row, typename Part, typename Inner>
struct Nested {
  static constexpr bool kIsOptional = !std::is_same_v<Part, typename Inner::RowType>;
  Part Row::*member;
  Inner inner;

  void names(Use use, SqlNames& into) const {
    if (use == Use::read || !kIsOptional) inner.names(use, into);
  }
  void bind(Stmt& to, const Row& row) const {
    if constexpr (!kIsOptional) inner.bind(to, row.*member);
  }
  void take(Stmt& from, Row& row) const {
    if constexpr (kIsOptional) {
      const bool is_there = !from.next_is_null();
      inner.take(from, (row.*member).emplace());
      if (!is_there) (row.*member).reset();
    } else {
      inner.take(from, row.*member);
    }
  }
};

template <typename Row, typename Part, typename Inner>
constexpr Nested<Row, Part, Inner> nested(Part Row::*member, Inner inner) {
  return {member, inner};
}

template <typename Row, typename... Items>
class Columns {
 public:
  using RowType = Row;

  constexpr explicit Columns(Items... items) : items_(items...) {}

  void names(Use use, SqlNames& into) const {
    each([&](const auto& item) { item.names(use, into); });
  }
  void bind(Stmt& to, const Row& row) const {
    each([&](const auto& item) { item.bind(to, row); });
  }
  void take(Stmt& from, Row& row) const {
    each([&](const auto& item) { item.take(from, row); });
  }

  /// "id, name", for SELECT.
  std::string list() const { return fmt::format("{}", fmt::join(names(Use::read), ", ")); }
  /// "(id, name) VALUES (?, ?)", for INSERT; values() follow.
  std::string insertion() const {
    const SqlNames columns = names(Use::write), marks(columns.size(), "?");
    return fmt::format("({}) VALUES ({})", fmt::join(columns, ", "), fmt::join(marks, ", "));
  }
  /// "id = ?, name = ?", for UPDATE; values() follow.
  std::string assignments() const {
    return fmt::format("{} = ?", fmt::join(names(Use::write), " = ?, "));
  }

  struct Values {
    const Columns& columns;
    const Row& row;
    void bind_to(Stmt& to) const { columns.bind(to, row); }
  };
  /// What a Stmt binds for those placeholders.
  Values values(const Row& row) const { return {*this, row}; }

 private:
  SqlNames names(Use use) const {
    SqlNames all;
    names(use, all);
    return all;
  }
  template <typename Call>
  void each(const Call& call) const {
    std::apply([&](const auto&... items) { (call(items), ...); }, items_);
  }

  std::tuple<Items...> items_;
};

template <typename Row, typename... Items>
constexpr Columns<Row, Items...> columns(Items... items) {
  return Columns<Row, Items...>(items...);
}

template <typename Table>
void insert_row(Db& db, std::string_view name, const Table& table,
                const typename Table::RowType& row) {
  Stmt(db, fmt::format("INSERT INTO {} {}", name, table.insertion()), table.values(row)).run();
}

/// Writes every column of the rows that fit `where`. Gives their number.
template <typename Table, typename... Keys>
int64_t update_row(Db& db, std::string_view name, const Table& table,
                   const typename Table::RowType& row, std::string_view where,
                   const Keys&... keys) {
  return Stmt(db, fmt::format("UPDATE {} SET {} WHERE {}", name, table.assignments(), where),
              table.values(row), keys...)
      .run();
}

/// `rest` begins with FROM.
template <typename Table, typename... Keys>
std::vector<typename Table::RowType> select_rows(Db& db, const Table& table, std::string_view rest,
                                                 const Keys&... keys) {
  std::vector<typename Table::RowType> rows;
  Stmt select(db, fmt::format("SELECT {} {}", table.list(), rest), keys...);
  while (select.step()) table.take(select, rows.emplace_back());
  return rows;
}

template <typename Row>
std::optional<Row> first_of(std::vector<Row> rows) {
  if (rows.empty()) return std::nullopt;
  return std::move(rows.front());
}

template <typename Table, typename... Keys>
auto select_row(Db& db, const Table& table, std::string_view rest, const Keys&... keys) {
  return first_of(select_rows(db, table, rest, keys...));
}

}  // namespace engine
