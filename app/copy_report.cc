// SPDX-License-Identifier: Apache-2.0
#include "app/copy_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/failure.h"
#include "app/operate/text.h"
#include "io/http_url.h"

namespace app {
namespace {

std::string in_words(uint64_t bytes) { return size_text(bytes); }
std::string in_words(double bytes) { return size_text(static_cast<uint64_t>(bytes)); }

}  // namespace

void print_json_line(const nlohmann::ordered_json& json) {
  const std::string line =
      json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  std::fputs(line.c_str(), stdout);
  flush_output();
}

CopyReport::CopyReport(bool json, io::Clock& clock)
    : json_(json),
      is_terminal_(::isatty(STDERR_FILENO) == 1),
      clock_(clock),
      started_(clock.now()) {}

double CopyReport::seconds() const {
  return std::max(0.001, std::chrono::duration<double>(clock_.now() - started_).count());
}

void CopyReport::start(const std::string& from, const std::string& to, uint64_t size,
                       uint64_t resumed_at) {
  const std::string source = io::without_password(from), target = io::without_password(to);
  started_ = clock_.now();
  resumed_at_ = resumed_at;
  if (json_) {
    print_json_line({{"event", "start"},
                     {"source", source},
                     {"target", target},
                     {"size_bytes", size},
                     {"resumed_at_bytes", resumed_at}});
    return;
  }
  fmt::print(stderr, "{} to {}: {}{}\n", source, target, in_words(size),
             resumed_at > 0 ? ", continued at " + in_words(resumed_at) : "");
}

void CopyReport::progress(const engine::CopyProgress& progress) {
  const uint64_t here = progress.done_until - std::min(progress.done_until, resumed_at_);
  const double rate = static_cast<double>(progress.data) / seconds();
  const double pace = static_cast<double>(here) / seconds();
  const uint64_t left = progress.size - progress.done_until;
  const double eta = pace > 0 ? static_cast<double>(left) / pace : 0;
  if (json_) {
    print_json_line({{"event", "progress"},
                     {"done_bytes", progress.done_until},
                     {"size_bytes", progress.size},
                     {"data_bytes", progress.data},
                     {"zero_bytes", progress.zeroes},
                     {"skipped_bytes", progress.skipped},
                     {"bytes_per_second", static_cast<uint64_t>(rate)},
                     {"eta_seconds", static_cast<uint64_t>(eta)}});
    return;
  }
  if (!is_terminal_) return;
  const double percent = progress.size == 0 ? 100
                                            : 100 * static_cast<double>(progress.done_until) /
                                                  static_cast<double>(progress.size);
  fmt::print(stderr, "\r{:5.1f} %  {}/s  data {}, holes {}, ETA {:.0f} s   ", percent,
             in_words(rate), in_words(progress.data), in_words(progress.zeroes), eta);
}

void CopyReport::done(const engine::CopyProgress& progress, const std::string& to) {
  const std::string target = io::without_password(to);
  const double took = seconds();
  const auto rate = static_cast<uint64_t>(static_cast<double>(progress.data) / took);
  if (json_) {
    print_json_line({{"event", "done"},
                     {"target", target},
                     {"size_bytes", progress.size},
                     {"data_bytes", progress.data},
                     {"zero_bytes", progress.zeroes},
                     {"skipped_bytes", progress.skipped},
                     {"seconds", took},
                     {"bytes_per_second", rate}});
    return;
  }
  fmt::print(stderr, "{}{}: data {}, holes {}, unchanged {}, {:.1f} s, {}/s, durable\n",
             is_terminal_ ? "\r" : "", target, in_words(progress.data), in_words(progress.zeroes),
             in_words(progress.skipped), took, in_words(rate));
}

void report_warning(bool json, const std::string& text) {
  if (json) {
    print_json_line({{"event", "warning"}, {"message", text}});
  } else {
    fmt::print(stderr, "varve: {}\n", text);
  }
}

void report_error(bool json, const Failure& failure) {
  if (json) {
    nlohmann::ordered_json line = {{"event", "error"}, {"message", failure.text()}};
    line.update(failure.json());
    print_json_line(line);
  } else {
    fmt::print(stderr, "varve: {}\n", failure.text());
  }
}

}  // namespace app
