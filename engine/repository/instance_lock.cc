// SPDX-License-Identifier: Apache-2.0
#include "engine/repository/instance_lock.h"

#include <fmt/format.h>

#include <span>
#include <stdexcept>
#include <system_error>

#include "engine/values/in_use.h"
#include "io/log.h"

namespace engine {
namespace {

constexpr size_t kPidTextMax = 32;
constexpr io::Duration kPatience = std::chrono::seconds(1);
constexpr io::Duration kPause = std::chrono::milliseconds(20);

io::Task<std::string> holder_of(io::File& file) {
  std::string text(kPidTextMax, '\0');
  co_await file.read(0, std::as_writable_bytes(std::span(text.data(), text.size())));
  const size_t end = text.find_first_not_of("0123456789");
  text.resize(end == std::string::npos ? text.size() : end);
  co_return text.empty() ? "unknown" : text;
}

/// Every instance holds a shared lock; one that finds another holder gives way.
bool take(io::File& file) {
  if (!file.lock_byte_shared(0)) return false;
  if (!file.byte_is_locked_elsewhere(0)) return true;
  file.unlock_byte(0);
  return false;
}

/// Who is restarted at once may come before the kernel has taken the killed process down. The lock
/// says nothing of that process's writes: those of each image keep the image's own lock.
io::Task<bool> take_patiently(io::Runtime runtime, io::File& file) {
  const io::SteadyTime end = runtime.clock.now() + kPatience;
  for (;;) {
    if (take(file)) co_return true;
    if (runtime.clock.now() >= end) co_return false;
    co_await io::sleep(runtime.executor, runtime.clock, kPause);
  }
}

}  // namespace

io::Task<InstanceLock> InstanceLock::acquire(io::Runtime runtime, std::string lock_path,
                                             std::string what, int64_t pid) {
  auto file = co_await runtime.files.open(lock_path, io::OpenMode::own_or_create);
  bool taken = true;
  try {
    taken = co_await take_patiently(runtime, *file);
  } catch (const std::system_error& failure) {
    io::log(io::LogLevel::warning, "{} cannot be locked: {}", lock_path, failure.what());
  }
  if (!taken) {
    const std::string holder = co_await holder_of(*file);
    throw InUse(fmt::format("{} is in use by another varve (pid {})", what, holder));
  }
  const std::string text = fmt::format("{}\n", pid);
  co_await file->truncate(0);
  co_await file->write(0, std::as_bytes(std::span(text.data(), text.size())));
  const auto locked = co_await runtime.files.status(lock_path);
  co_return InstanceLock(std::move(file), locked);
}

}  // namespace engine
