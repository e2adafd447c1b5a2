// SPDX-License-Identifier: Apache-2.0
#include "app/process_numbers.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace app {
namespace {

/// Field `number` of /proc/self/stat as proc(5) counts them, from 4 on. The second field is a name
/// in parentheses, which may hold spaces.
class ProcStat {
 public:
  ProcStat() {
    std::ifstream file("/proc/self/stat");
    std::string line;
    std::getline(file, line);
    const size_t end = line.rfind(") ");
    if (end == std::string::npos) return;
    std::istringstream rest(line.substr(end + 2));
    for (std::string field; rest >> field;) fields_.push_back(std::move(field));
  }

  std::optional<double> field(size_t number) const {
    constexpr size_t kFirst = 3;  // the state
    if (number - kFirst >= fields_.size()) return std::nullopt;
    return std::stod(fields_[number - kFirst]);
  }

 private:
  std::vector<std::string> fields_;
};

/// When the machine came up, in seconds since 1970.
std::optional<double> boot_time() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  }
  return std::nullopt;
}

std::optional<uint64_t> open_fds() {
  std::error_code failure;
  std::filesystem::directory_iterator entries("/proc/self/fd", failure);
  if (failure) return std::nullopt;
  uint64_t count = 0;
  for (const auto end = std::filesystem::directory_iterator(); entries != end && !failure;
       entries.increment(failure)) {
    ++count;
  }
  return count == 0 ? 0 : count - 1;  // one of them reads the directory
}

}  // namespace

api::ProcessNumbers process_numbers() {
  api::ProcessNumbers numbers;
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const ProcStat stat;
  const auto user = stat.field(14), system = stat.field(15), threads = stat.field(20),
             started = stat.field(22), virtual_bytes = stat.field(23), pages = stat.field(24);
  if (user && system) numbers.cpu_seconds = (*user + *system) / ticks;
  if (const auto boot = boot_time(); boot && started) {
    numbers.start_time_seconds = *boot + *started / ticks;
  }
  if (threads) numbers.threads = static_cast<uint64_t>(*threads);
  if (virtual_bytes) numbers.virtual_bytes = static_cast<uint64_t>(*virtual_bytes);
  if (pages) numbers.resident_bytes = static_cast<uint64_t>(*pages) * page_bytes;
  numbers.open_fds = open_fds();
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) numbers.fds_max = limit.rlim_cur;
  return numbers;
}

}  // namespace app
