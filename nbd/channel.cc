// SPDX-License-Identifier: Apache-2.0
#include "nbd/channel.h"

#include <chrono>

#include "io/log.h"

namespace nbd {

Channel::Channel(std::unique_ptr<io::Stream> stream, std::span<const std::byte> read_ahead,
                 Export& exported, Negotiation rules)
    : export_(exported),
      rules_(rules),
      header_bytes_(rules.extended_headers ? Request::kExtendedWireBytes : Request::kWireBytes),
      stream_(std::move(stream)),
      inbox_(*stream_, read_ahead),
      outbox_(exported.home().executor, *stream_) {}

void Channel::note_traffic() {
  counters().last_traffic_steady_ns =
      std::chrono::nanoseconds(runtime().clock.now().time_since_epoch()).count();
}

void Channel::abort() noexcept {
  is_aborted_ = true;
  stream_->abort();
}

void Channel::close_by_server() {
  if (end_reason_.empty()) end_reason_ = "closed by the server";
}

void Channel::end_abnormally(std::string reason) {
  end_reason_ = std::move(reason);
  ++counters().abnormal_ends;
}

void Channel::lose_client(std::exception_ptr cause) noexcept {
  try {
    std::rethrow_exception(std::move(cause));
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::error, "nbd: a connection to \"{}\" cannot continue: {}", export_.name(),
            failure.what());
  } catch (...) {
  }
  abort();
}

void Channel::end_broken(const std::string& how) {
  abort();
  const bool ours = !end_reason_.empty();
  if (!ours) ++counters().abnormal_ends;
  io::log(ours ? io::LogLevel::info : io::LogLevel::warning,
          "nbd: connection from {} to \"{}\" ended: {}", stream_->peer(), export_.name(),
          ours ? end_reason_ : how);
}

}  // namespace nbd
