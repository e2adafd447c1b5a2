// SPDX-License-Identifier: Apache-2.0
#include "app/operate/table.h"

#include <algorithm>

namespace app {
namespace {

std::string padded(const std::string& text, size_t width, bool right) {
  const std::string blanks(width - std::min(width, width_of(text)), ' ');
  return right ? blanks + text : text + blanks;
}

}  // namespace

void Table::add(const nlohmann::json& object, const std::string& prefix) {
  std::vector<std::string> cells;
  for (const Column& column : selection_.columns) {
    cells.push_back(cell_text(selection_, column, object, style_));
  }
  cells.front() = prefix + cells.front();
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  if (rows_.empty()) return "";
  std::vector<size_t> widths;
  for (size_t i = 0; i < selection_.columns.size(); ++i) {
    size_t width = width_of(selection_.columns[i].title);
    for (const auto& row : rows_) width = std::max(width, width_of(row[i]));
    widths.push_back(width);
  }
  std::string text;
  const auto line = [&](const auto& cell, const auto& tone) {
    std::string shown;
    for (size_t i = 0; i < selection_.columns.size(); ++i) {
      const bool right = is_quantity(type_of(selection_, selection_.columns[i]));
      const std::string content = padded(cell(i), widths[i], right);
      shown += (i == 0 ? "" : "  ") + coloured(content, tone(i), style_);
    }
    if (!style_.colour) shown.erase(shown.find_last_not_of(' ') + 1);
    text += shown + "\n";
  };
  line([&](size_t i) { return std::string(selection_.columns[i].title); },
       [](size_t) { return Tone::heading; });
  for (const auto& row : rows_) {
    line([&](size_t i) { return row[i]; }, [&](size_t i) { return tone_of(row[i]); });
  }
  return text;
}

Table table_of(const Selection& selection, const nlohmann::json& array, const Style& style) {
  Table table(selection, style);
  for (const nlohmann::json& object : array) table.add(object);
  return table;
}

std::string details_text(const Selection& selection, const nlohmann::json& object,
                         const Style& style) {
  size_t width = 0;
  for (const Column& column : selection.columns) width = std::max(width, width_of(column.title));
  std::string text;
  for (const Column& column : selection.columns) {
    const std::string value = cell_text(selection, column, object, style);
    if (value.empty()) continue;
    text += padded(std::string(column.title) + ":", width + 3, false) +
            coloured(value, tone_of(value), style) + "\n";
  }
  return text;
}

}  // namespace app
