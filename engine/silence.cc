// SPDX-License-Identifier: Apache-2.0
#include "engine/silence.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "engine/jobs/watch.h"
#include "engine/values/time_text.h"
#include "io/log.h"

namespace engine {
namespace {

using std::chrono::seconds;

/// The VMs are looked at this many times in the shortest interval, or each minute.
constexpr uint64_t kLooksInShortest = 8;
constexpr seconds kSilenceLookEvery = seconds(60);

class Silence {
 public:
  explicit Silence(Core& core) : core_(core) {}

  /// Each watch_interval.
  void step() {
    const bool is_changed = std::exchange(core_.intervals_changed, false);
    if (!is_changed && core_.steady_now() < next_look_) return;
    seconds until_next = kSilenceLookEvery;
    next_look_ = core_.steady_now() + until_next;  // also when the look fails
    std::set<std::string> silent;
    for (Vm& listed : core_.catalogue->vms.list_ages()) {
      const Vm vm = with_silence(core_, std::move(listed));
      const uint64_t interval = *vm.expected_interval_seconds;
      if (interval == 0) continue;
      until_next = std::min(until_next, seconds(interval / kLooksInShortest));
      if (!vm.overdue) continue;
      silent.insert(vm.context_id);
      if (!told_.contains(vm.context_id)) tell(vm);
    }
    told_ = std::move(silent);
    next_look_ = core_.steady_now() + until_next;
  }

 private:
  void tell(const Vm& vm) {
    const std::string interval = duration_text(seconds(*vm.expected_interval_seconds));
    const Time newest = vm.last_good_at.value_or(vm.created_at);
    std::string since = vm.last_good_at ? "its newest good point is of "
                                        : "it has no good point, and is registered since ";
    since += to_rfc3339(newest);
    if (newest > core_.now()) since += " (the clock was wrong then, or is wrong now)";
    Notification told;
    told.event = NotificationEvent::overdue;
    told.vm_name = vm.vm_name;
    told.text = fmt::format("VM {} is overdue: {}, and one is expected every {}", vm.vm_name, since,
                            interval);
    told.details["expected_interval_seconds"] = std::to_string(*vm.expected_interval_seconds);
    if (vm.last_good_at) told.details["last_good_at"] = to_rfc3339(*vm.last_good_at);
    io::log(io::LogLevel::warning, {.vm = vm.vm_name}, "{}", told.text);
    core_.tell(std::move(told));
  }

  Core& core_;
  io::SteadyTime next_look_{};
  std::set<std::string> told_;  // context ids
};

}  // namespace

Vm with_silence(const Core& core, Vm vm) {
  const uint64_t interval = vm.expected_interval_seconds.value_or(
      static_cast<uint64_t>(core.options.expected_interval.count()));
  vm.expected_interval_seconds = interval;
  vm.overdue = is_overdue(interval, vm.last_good_at.value_or(vm.created_at), core.now());
  return vm;
}

io::Task<void> watch_silence(Core& core) {
  Silence silence(core);
  while (!core.shutting_down) {
    try {
      silence.step();
    } catch (const std::exception& failure) {
      io::log(io::LogLevel::error, "the VMs cannot be looked at: {}", failure.what());
    }
    co_await io::wait_for(core.parts.home.executor, core.parts.home.clock, core.stop_watching,
                          core.options.watch_interval);
  }
}

}  // namespace engine
