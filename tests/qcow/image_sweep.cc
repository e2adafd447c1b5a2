// SPDX-License-Identifier: Apache-2.0
#include "tests/qcow/image_sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "io/task_scope.h"

namespace qcow_test {
namespace {

/// As std::ranges::equal, which without optimisation takes most of a sweep's time.
bool same(std::span<const std::byte> one, std::span<const std::byte> other) {
  return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace

void SectorVersions::begin(uint64_t offset, std::span<const std::byte> bytes) {
  const uint64_t end = offset + bytes.size();
  for (uint64_t index = offset / kSector; index * kSector < end; ++index) {
    const auto old = sector(content_, index);
    later_[index].emplace_back(old.begin(), old.end());
  }
  std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<ptrdiff_t>(offset));
}

void SectorVersions::flushed() {
  for (auto& versions : later_) versions.clear();
}

std::string SectorVersions::judge(const Bytes& found) const {
  for (uint64_t index = 0; index < later_.size(); ++index) {
    const auto here = sector(found, index);
    if (same(here, sector(content_, index))) continue;
    const bool known = std::ranges::any_of(
        later_[index], [&](const Bytes& version) { return same(here, version); });
    if (!known) {
      return fmt::format("sector {} holds none of the {} versions it may hold", index,
                         later_[index].size() + 1);
    }
  }
  return "";
}

std::string SectorVersions::judge_read(uint64_t offset, std::span<const std::byte> found,
                                       const Step* failed) const {
  for (uint64_t at = 0; at < found.size(); at += kSector) {
    const uint64_t index = (offset + at) / kSector;
    const auto here = found.subspan(at, kSector);
    if (same(here, sector(content_, index))) continue;
    const auto in_step = [&](uint64_t from) {
      return from < (index + 1) * kSector && index * kSector < from + failed->bytes.size();
    };
    const bool changing =
        failed != nullptr && (in_step(failed->offset) || (failed->kind == Step::Kind::two_writes &&
                                                          in_step(failed->other_offset)));
    if (changing && !later_[index].empty() && same(here, later_[index].back())) continue;
    return fmt::format("sector {} is read as it was before an acknowledged change", index);
  }
  return "";
}

std::vector<Step> make_script(uint64_t seed, size_t count, uint64_t disk_bytes) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t end) { return random() % end; };
  std::vector<Step> script;
  for (size_t i = 0; i < count; ++i) {
    Step step;
    const uint64_t dice = below(100);
    const uint64_t unit = below(3) == 0 ? 1 : 512;
    const uint64_t length = (1 + below(below(8) == 0 ? 60'000 / unit : 6'000 / unit)) * unit;
    step.offset = below((disk_bytes / 2 - length) / unit) * unit;
    step.other_offset = disk_bytes / 2 + step.offset;
    if (below(2) == 0) std::swap(step.offset, step.other_offset);
    step.bytes = random_bytes(random, length);
    if (dice < 45) {
      step.kind = Step::Kind::write;
    } else if (dice < 60) {
      step.kind = Step::Kind::two_writes;
    } else if (dice < 75) {
      step.kind = Step::Kind::zero;
    } else if (dice < 82) {
      step.kind = Step::Kind::discard;
    } else if (dice < 92) {
      step.kind = Step::Kind::flush;
    } else {
      step.kind = Step::Kind::read;
    }
    script.push_back(std::move(step));
  }
  return script;
}

namespace {

io::Task<void> write_piece(io::Runtime runtime, qcow::Image& image, uint64_t offset,
                           const Bytes& bytes) {
  io::Buffer buffer = co_await runtime.buffers.acquire(bytes.size(), offset % 4096);
  std::copy(bytes.begin(), bytes.end(), buffer.data());
  co_await image.write(offset, std::move(buffer));
}

io::Task<void> two_writes(io::Runtime runtime, qcow::Image& image, const Step& step) {
  const auto both = [&](io::TaskScope& scope) -> io::Task<void> {
    scope.spawn(write_piece(runtime, image, step.offset, step.bytes));
    scope.spawn(write_piece(runtime, image, step.other_offset, step.bytes));
    co_return;
  };
  co_await io::run_scoped(both);
}

io::Task<void> run_step(io::Runtime runtime, qcow::Image& image, const Step& step) {
  const uint64_t length = step.bytes.size();
  switch (step.kind) {
    case Step::Kind::write:
      co_await write_piece(runtime, image, step.offset, step.bytes);
      break;
    case Step::Kind::two_writes:
      co_await two_writes(runtime, image, step);
      break;
    case Step::Kind::zero:
      co_await image.write_zeroes(step.offset, length, io::ZeroMode::may_unmap);
      break;
    case Step::Kind::discard:
      co_await image.discard(step.offset, length);
      break;
    case Step::Kind::flush:
      co_await image.flush();
      break;
    case Step::Kind::read: {
      Bytes into(length);
      co_await image.read(step.offset, into);
      break;
    }
  }
}

void note_begin(SectorVersions& versions, const Step& step) {
  const bool writes = step.kind == Step::Kind::write || step.kind == Step::Kind::two_writes;
  const bool zeroes = step.kind == Step::Kind::zero || step.kind == Step::Kind::discard;
  if (writes) versions.begin(step.offset, step.bytes);
  if (step.kind == Step::Kind::two_writes) versions.begin(step.other_offset, step.bytes);
  if (zeroes) versions.begin(step.offset, Bytes(step.bytes.size()));
}

}  // namespace

io::Task<void> run_script(io::Runtime runtime, qcow::Image& image, const std::vector<Step>& script,
                          const Around& around, ScriptResult& result) {
  for (size_t i = 0; i < script.size(); ++i) {
    const Step& step = script[i];
    note_begin(result.versions, step);
    std::exception_ptr failure;
    around(true);
    try {
      co_await run_step(runtime, image, step);
    } catch (...) {
      failure = std::current_exception();
    }
    around(false);
    if (failure && step.kind == Step::Kind::read) {
      ++result.failed_reads;
    } else if (failure) {
      result.failure = failure;
      result.failed_step = &step;
      result.step = fmt::format("step {} (kind {}) @{}+{}", i, static_cast<int>(step.kind),
                                step.offset, step.bytes.size());
      co_return;
    } else if (step.kind == Step::Kind::flush) {
      result.versions.flushed();
    }
  }
}

}  // namespace qcow_test
