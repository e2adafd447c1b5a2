// SPDX-License-Identifier: Apache-2.0
#include "engine/care/reader_lines.h"

#include <fmt/format.h>

#include <charconv>

namespace engine {
namespace {

constexpr size_t kTextMax = 300;

/// Takes what lies before the next space off the front; nothing when there is no space.
std::optional<std::string_view> take_word(std::string_view& rest) {
  const size_t space = rest.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view word = rest.substr(0, space);
  rest.remove_prefix(space + 1);
  return word;
}

std::optional<uint64_t> number_of(std::string_view word) {
  uint64_t number = 0;
  const char* const end = word.data() + word.size();
  const auto [stopped, error] = std::from_chars(word.data(), end, number);
  if (word.empty() || error != std::errc() || stopped != end) return std::nullopt;
  return number;
}

std::string one_line(std::string_view text) {
  std::string line(text.substr(0, kTextMax));
  for (char& c : line) {
    if (c >= 0 && c < ' ') c = ' ';
  }
  return line;
}

}  // namespace

std::string encode(const ReaderRequest& request) {
  return fmt::format("{} {}\n", request.offset, request.count);
}

std::string encode(const ReaderLine& line) {
  switch (line.kind) {
    case ReaderLine::Kind::ready:
      return fmt::format("ready {}\n", line.offset);
    case ReaderLine::Kind::failed:
      return fmt::format("failed {}\n", one_line(line.text));
    case ReaderLine::Kind::unread:
      return fmt::format("unread {} {}\n", line.offset, one_line(line.text));
    case ReaderLine::Kind::sum:
      break;
  }
  return fmt::format("sum {} {}\n", line.offset, qcow::sum_text(line.sum));
}

std::optional<ReaderRequest> decode_reader_request(std::string_view line) {
  const auto offset = take_word(line);
  if (!offset) return std::nullopt;
  const auto at = number_of(*offset), count = number_of(line);
  if (!at || !count || *count == 0) return std::nullopt;
  return ReaderRequest{*at, *count};
}

std::optional<ReaderLine> decode_reader_line(std::string_view line) {
  if (line.size() > kReaderLineMax) return std::nullopt;
  const auto word = take_word(line);
  if (!word) return std::nullopt;
  if (*word == "failed")
    return ReaderLine{.kind = ReaderLine::Kind::failed, .text = std::string(line)};
  if (*word == "ready") {
    const auto size = number_of(line);
    if (!size) return std::nullopt;
    return ReaderLine{.kind = ReaderLine::Kind::ready, .offset = *size};
  }
  const auto offset = take_word(line);
  const auto at = offset ? number_of(*offset) : std::nullopt;
  if (!at) return std::nullopt;
  if (*word == "unread") {
    return ReaderLine{.kind = ReaderLine::Kind::unread, .offset = *at, .text = std::string(line)};
  }
  const auto sum = qcow::sum_from_text(line);
  if (*word != "sum" || !sum) return std::nullopt;
  return ReaderLine{.kind = ReaderLine::Kind::sum, .offset = *at, .sum = *sum};
}

}  // namespace engine
