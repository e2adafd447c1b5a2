// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/operate/columns.h"

/// The one way in which the client verbs print rows, and things with their members.
namespace app {

/// Rows under titles, columns apart from each other by two spaces; quantities end at one edge.
class Table {
 public:
  Table(const Selection& selection, const Style& style) : selection_(selection), style_(style) {}

  /// `prefix` stands before the first cell: a branch of a tree.
  void add(const nlohmann::json& object, const std::string& prefix = "");
  bool empty() const { return rows_.empty(); }
  /// The whole table, lines without blanks at their ends. "" without rows.
  std::string text() const;

 private:
  const Selection& selection_;
  const Style& style_;
  std::vector<std::vector<std::string>> rows_;
};

/// Every object of an array as a row.
Table table_of(const Selection& selection, const nlohmann::json& array, const Style& style);

/// "Title:  value" in lines; members that are missing and have no text for it are left out.
std::string details_text(const Selection& selection, const nlohmann::json& object,
                         const Style& style);

}  // namespace app
