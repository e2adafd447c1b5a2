// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/campaign.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace crash {

namespace {

constexpr size_t kOpsOfRun = 160;
constexpr auto kShrinkPatience = std::chrono::seconds(20);

std::optional<Failure> fails(const Finding& finding) {
  Campaign alone;
  alone.states_a_run = 1000;
  ImageRun run(alone, finding.seed, finding.shape, finding.script);
  return run.run();
}

size_t kept(const std::vector<Op>& script) {
  return static_cast<size_t>(
      std::count_if(script.begin(), script.end(), [](const Op& op) { return !op.dropped; }));
}

}  // namespace

std::optional<Finding> run_seed(Campaign& campaign, uint64_t seed) {
  const Shape shape = Shape::of_seed(seed);
  const std::vector<Op> script = script_of_seed(seed, shape, kOpsOfRun);
  ++campaign.runs;
  ImageRun run(campaign, seed, shape, script);
  const auto failure = run.run();
  if (!failure) return std::nullopt;
  return Finding{seed, shape, script, *failure};
}

std::optional<Finding> search(Campaign& campaign, uint64_t states_wanted) {
  for (uint64_t seed = campaign.first_seed; campaign.states < states_wanted; ++seed) {
    if (auto finding = run_seed(campaign, seed)) return finding;
  }
  return std::nullopt;
}

Finding shrink(Finding finding) {
  const auto until = std::chrono::steady_clock::now() + kShrinkPatience;
  const auto in_time = [&] { return std::chrono::steady_clock::now() < until; };
  for (size_t chunk = finding.script.size() / 2; chunk > 0 && in_time(); chunk /= 2) {
    for (size_t at = 0; at < finding.script.size() && in_time(); at += chunk) {
      Finding smaller = finding;
      const size_t end = std::min(at + chunk, smaller.script.size());
      for (size_t i = at; i < end; ++i) smaller.script[i].dropped = true;
      if (kept(smaller.script) == kept(finding.script)) continue;
      if (const auto failure = fails(smaller)) {
        smaller.failure = *failure;
        finding = std::move(smaller);
      }
    }
  }
  return finding;
}

std::string report(const Finding& finding) {
  std::string text =
      fmt::format("{}\nseed {}: {}\nreplay: crash_tests --seed {} --cut {}\n", finding.failure.what,
                  finding.seed, finding.shape.text(), finding.seed, finding.failure.cut);
  const Finding small = shrink(finding);
  text += fmt::format("{} of {} operations suffice, for: {}\n", kept(small.script),
                      small.script.size(), small.failure.what);
  for (const Op& op : small.script) {
    if (!op.dropped) text += "  " + op.text() + "\n";
  }
  return text;
}

}  // namespace crash
