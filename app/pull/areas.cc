// SPDX-License-Identifier: Apache-2.0
#include "app/pull/areas.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

namespace app {
namespace {

/// A list in memory takes 24 bytes for each of them.
constexpr size_t kAreasMax = 400'000;

enum class AreaKind : uint8_t { data, zero, clean };

std::vector<std::string_view> words_of(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  std::vector<std::string_view> words;
  for (size_t at = 0; (at = line.find_first_not_of(kBlank, at)) != line.npos;) {
    const size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

std::optional<uint64_t> number_of(std::string_view word) {
  const bool is_hex = word.starts_with("0x");
  if (is_hex) word.remove_prefix(2);
  unsigned shift = 0;
  if (!is_hex && !word.empty()) {
    const size_t unit = std::string_view("KMGT").find(word.back());
    if (unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      word.remove_suffix(1);
    }
  }
  uint64_t number = 0;
  const char* const end = word.data() + word.size();
  const auto [stop, error] = std::from_chars(word.data(), end, number, is_hex ? 16 : 10);
  if (error != std::errc() || stop != end || number > (UINT64_MAX >> shift)) return std::nullopt;
  return number << shift;
}

/// nbdinfo says in words what its number means in that context; the words win.
AreaKind kind_of(std::string_view type, std::string_view description) {
  const std::string_view said = description.empty() ? type : description;
  if (said == "clean") return AreaKind::clean;
  if (said == "zero" || said == "hole,zero" || said == "zero,hole" || said == "2" || said == "3") {
    return AreaKind::zero;
  }
  return AreaKind::data;
}

}  // namespace

Areas Areas::parse(std::string_view text, uint64_t disk_bytes, const std::string& name) {
  Areas areas;
  const auto take = [&](uint64_t offset, uint64_t length, AreaKind kind, const std::string& where) {
    if (offset > disk_bytes || length > disk_bytes - offset) {
      throw std::runtime_error(fmt::format("{}, {}: {} bytes at {} end beyond the disk's {} bytes",
                                           name, where, length, offset, disk_bytes));
    }
    if (kind != AreaKind::clean && length > 0) {
      areas.add({offset, length, kind == AreaKind::zero});
    }
  };
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != text.npos && text[first] == '[') {
    const auto list = nlohmann::json::parse(text, nullptr, false);
    if (!list.is_array()) throw std::runtime_error(name + ": the JSON is not an array");
    size_t number = 0;
    for (const auto& item : list) {
      const std::string where = fmt::format("element {}", number++);
      const auto found = [&](const char* member) {
        if (!item.is_object() || !item.contains(member) || !item[member].is_number_unsigned()) {
          throw std::runtime_error(
              fmt::format("{}, {}: '{}' must be a number of bytes", name, where, member));
        }
        return item[member].template get<uint64_t>();
      };
      const std::string type = item.contains("type") ? item["type"].dump() : "";
      const auto described = item.find("description");
      const std::string description = described != item.end() && described->is_string()
                                          ? described->template get<std::string>()
                                          : "";
      const uint64_t offset = found("offset"), length = found("length");
      take(offset, length, kind_of(type, description), where);
    }
  } else {
    size_t number = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = text.substr(at, end - at);
      at = end + 1;
      ++number;
      const auto words = words_of(line.substr(0, line.find('#')));
      if (words.empty()) continue;
      const auto offset = number_of(words[0]);
      const auto length = words.size() > 1 ? number_of(words[1]) : std::nullopt;
      if (!offset || !length || words.size() > 4) {
        throw std::runtime_error(
            fmt::format("{}, line {}: '{}' is not 'offset length [type]'", name, number, line));
      }
      const auto word = [&](size_t i) { return i < words.size() ? words[i] : std::string_view(); };
      take(*offset, *length, kind_of(word(2), word(3)), fmt::format("line {}", number));
    }
  }
  areas.sort_and_join();
  return areas;
}

void Areas::add(engine::CopyRange area) {
  if (!areas_.empty()) {
    engine::CopyRange& last = areas_.back();
    if (last.zero == area.zero && last.offset + last.length == area.offset) {
      last.length += area.length;
      return;
    }
  }
  if (areas_.size() == kAreasMax) {
    throw std::runtime_error(
        fmt::format("the list of changes has more than {} areas; list larger ones", kAreasMax));
  }
  areas_.push_back(area);
}

/// Where two overlap, data wins: it is read, and zero then if it is zero.
void Areas::sort_and_join() {
  std::stable_sort(areas_.begin(), areas_.end(),
                   [](const auto& a, const auto& b) { return a.offset < b.offset; });
  size_t kept = 0;
  for (const engine::CopyRange area : areas_) {
    engine::CopyRange* const last = kept > 0 ? &areas_[kept - 1] : nullptr;
    const uint64_t last_end = last ? last->offset + last->length : 0;
    const bool meets =
        last && (last_end > area.offset || (last_end == area.offset && last->zero == area.zero));
    if (!meets) {
      areas_[kept++] = area;
      continue;
    }
    last->length = std::max(last_end, area.offset + area.length) - last->offset;
    last->zero = last->zero && area.zero;
  }
  areas_.resize(kept);
}

std::vector<engine::CopyRange> Areas::within(uint64_t offset, uint64_t length) const {
  const uint64_t end = offset + length;
  auto area = std::partition_point(areas_.begin(), areas_.end(), [offset](const auto& range) {
    return range.offset + range.length <= offset;
  });
  std::vector<engine::CopyRange> found;
  for (; area != areas_.end() && area->offset < end; ++area) {
    const uint64_t from = std::max(area->offset, offset);
    const uint64_t to = std::min(area->offset + area->length, end);
    found.push_back({from, to - from, area->zero});
  }
  return found;
}

uint64_t Areas::bytes() const {
  uint64_t sum = 0;
  for (const engine::CopyRange& area : areas_) sum += area.length;
  return sum;
}

}  // namespace app
