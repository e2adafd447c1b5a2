#include <algorithm>
#include <system_error>

#include "nbd/session.h"

/// TRIM and WRITE_ZEROES (C7, C9-C11, X-6).
namespace nbd {

/// A request may be about terabytes, and allocate them: between two steps it notices that the
/// export takes no writes any more, so that sealing never waits for the whole (X-6, D7).
io::Task<void> Session::change_in_steps(uint64_t offset, uint64_t end, Change change) {
  const uint64_t step_bytes = settings_.change_bytes_at_once;
  while (offset < end) {
    if (auto refusal = export_.closed_refusal()) throw Refused(*std::move(refusal));
    if (auto refusal = export_.write_refusal()) throw Refused(*std::move(refusal));
    const uint64_t next = std::min(end, (offset / step_bytes + 1) * step_bytes);
    const Export::WriteUnderWay under_way(export_);
    co_await change(offset, next - offset);
    offset = next;
    if (offset < end) co_await io::NextTurn{runtime_.executor};
  }
}

io::Task<void> Session::trim(const Request& request) {
  const auto discard = [this](uint64_t offset, uint64_t length) {
    return device().discard(offset, length);
  };
  co_await change_in_steps(request.offset, request.offset + request.length, discard);
  export_.counters().bytes_zeroed += request.length;
  if (request.has(kFlagFua)) co_await device().flush();
}

io::Task<void> Session::write_zeroes(const Request& request) {
  constexpr uint64_t kLargeBytes = 4 << 20;
  Counters& counters = export_.counters();
  if (request.has(kFlagFastZero) && request.has(kFlagNoHole)) {  // C11
    throw std::system_error(ENOTSUP, std::generic_category(),
                            "WRITE_ZEROES cannot be fast and allocate");
  }
  io::ZeroMode mode = io::ZeroMode::may_unmap;
  if (request.has(kFlagNoHole)) mode = io::ZeroMode::no_hole;
  if (request.has(kFlagFastZero)) mode = io::ZeroMode::fast_or_fail;
  const uint64_t end = request.offset + request.length;
  if (mode == io::ZeroMode::fast_or_fail && request.length > 0) {  // all or nothing, and quick
    const Export::WriteUnderWay under_way(export_);
    co_await device().write_zeroes(request.offset, request.length, mode);
  } else {
    const auto zero = [this, mode](uint64_t offset, uint64_t length) {
      return device().write_zeroes(offset, length, mode);
    };
    co_await change_in_steps(request.offset, end, zero);
  }
  counters.bytes_zeroed += request.length;
  if (request.length >= kLargeBytes) {
    ++counters.zero_requests_4mib;
    counters.zero_bytes_4mib += request.length;
  }
  if (request.has(kFlagFua)) co_await device().flush();
}

}  // namespace nbd
