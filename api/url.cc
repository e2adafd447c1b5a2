// SPDX-License-Identifier: Apache-2.0
#include "api/url.h"

#include <algorithm>
#include <cctype>

#include "io/percent_encoding.h"

namespace api {
namespace {

// A piece of a query: '+' stands for a space there.
std::string form_decoded(std::string_view text) {
  std::string spaced(text);
  for (char& c : spaced) {
    if (c == '+') c = ' ';
  }
  return io::percent_decoded(spaced);
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const size_t end = std::min(path.find('/'), path.size());
    segments.push_back(io::percent_decoded(path.substr(0, end)));
    path.remove_prefix(end);
  }
  return segments;
}

}  // namespace

std::string in_lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

Query::Query(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    const size_t equals = std::min(pair.find('='), pair.size());
    parameters_.emplace_back(form_decoded(pair.substr(0, equals)),
                             form_decoded(pair.substr(std::min(equals + 1, pair.size()))));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string Query::get(std::string_view name) const {
  for (const auto& [key, value] : parameters_) {
    if (key == name) return value;
  }
  return "";
}

Target::Target(std::string_view target) {
  target = target.substr(0, target.find('#'));
  const size_t question = std::min(target.find('?'), target.size());
  path = target.substr(0, question);
  if (path.starts_with('/')) segments = split(path);
  if (question < target.size()) query = Query(target.substr(question + 1));
}

}  // namespace api
