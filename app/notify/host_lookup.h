// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace app {

/// The addresses of a host as numbers, best first. Blocks for as long as the system's resolver
/// does. Throws std::runtime_error.
using ResolveHost = std::function<std::vector<std::string>(const std::string& host)>;
std::vector<std::string> resolve_host(const std::string& host);

/// Looks up one host on a thread of its own, because the system's resolver knows no bound and
/// cannot be stopped. Callers stop waiting at their deadline; the thread is detached and never
/// joined. At most one lookup is under way: while it hangs, later callers wait for its answer.
class HostLookup {
 public:
  explicit HostLookup(std::string host, ResolveHost resolve = resolve_host);
  HostLookup(const HostLookup&) = delete;
  ~HostLookup();

  /// Nothing when there is no answer at `until`, or after interrupt(). Throws std::runtime_error
  /// with what the resolver says.
  std::vector<std::string> addresses(std::chrono::steady_clock::time_point until);
  /// Ends it at once, also those to come. Any thread.
  void interrupt() noexcept;

 private:
  struct State;
  const std::shared_ptr<State> state_;  // with the thread, which may outlive this
};

}  // namespace app
