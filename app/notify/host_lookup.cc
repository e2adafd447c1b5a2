// SPDX-License-Identifier: Apache-2.0
#include "app/notify/host_lookup.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

namespace app {

std::vector<std::string> resolve_host(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* first = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &first);
  if (error != 0) {
    throw std::runtime_error(error == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> found(first, ::freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* each = first; each != nullptr; each = each->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, nullptr, 0,
                      NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text);
    }
  }
  return addresses;
}

struct HostLookup::State {
  State(std::string of, ResolveHost by) : host(std::move(of)), resolve(std::move(by)) {}

  void ask() noexcept {
    std::vector<std::string> addresses;
    std::string failure;
    try {
      addresses = resolve(host);
      if (addresses.empty()) failure = "it has no address";
    } catch (const std::exception& cause) {
      failure = cause.what();
    }
    const std::lock_guard lock(mutex);
    found = std::move(addresses);
    error = std::move(failure);
    is_asking = false;
    changed.notify_all();
  }

  const std::string host;
  const ResolveHost resolve;
  std::mutex mutex;
  std::condition_variable changed;
  bool is_asking = false, is_interrupted = false;  // guarded by mutex, as all below
  std::vector<std::string> found;
  std::string error;  // "": found
};

HostLookup::HostLookup(std::string host, ResolveHost resolve)
    : state_(std::make_shared<State>(std::move(host), std::move(resolve))) {}

HostLookup::~HostLookup() = default;

std::vector<std::string> HostLookup::addresses(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(state_->mutex);
  if (state_->is_interrupted) return {};
  if (!state_->is_asking) {
    std::thread([state = state_] { state->ask(); }).detach();
    state_->is_asking = true;
  }
  state_->changed.wait_until(lock, until,
                             [this] { return !state_->is_asking || state_->is_interrupted; });
  if (state_->is_asking || state_->is_interrupted) return {};
  if (!state_->error.empty()) throw std::runtime_error(state_->error);
  return state_->found;
}

void HostLookup::interrupt() noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->is_interrupted = true;
  state_->changed.notify_all();
}

}  // namespace app
