// SPDX-License-Identifier: Apache-2.0
#include "nbd/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "io/log.h"
#include "io/outcome.h"

namespace nbd {
namespace {

/// B2: the image's cluster size, within bounds that every client can work with.
uint32_t advertised_block_size(const io::BlockDevice& device) {
  return std::clamp<uint32_t>(device.preferred_block_size(), 4096, 2 << 20);
}

MetaContexts all_contexts(const ExportSpec& spec) {
  MetaContexts contexts = allocation_contexts();
  contexts.insert(contexts.end(), spec.more_contexts.begin(), spec.more_contexts.end());
  return contexts;
}

}  // namespace

ConnectionPlace::~ConnectionPlace() {
  if (!of_) return;
  io::Executor& home = of_->home().executor;
  if (home.here()) {
    of_->place_given_up();
  } else {
    home.post(std::move(give_up_));
  }
}

Export::WriteUnderWay::~WriteUnderWay() {
  if (!of_) return;
  assert(of_->writes_under_way_ > 0);
  if (--of_->writes_under_way_ == 0) of_->changed_.wake();
}

Export::~Export() {
  assert(connections_.empty() && places_taken_ == 0 && "join() an export before it goes");
  assert(writes_under_way_ == 0 && !commit_.running);
}

std::shared_ptr<Export> Export::make(ExportSpec spec, io::BlockDevice& device, io::Runtime home) {
  return std::shared_ptr<Export>(new Export(std::move(spec), device, home));
}

Export::Export(ExportSpec spec, io::BlockDevice& device, io::Runtime home)
    : spec_(std::move(spec)),
      device_(device),
      home_(home),
      size_(device.size()),
      preferred_block_size_(advertised_block_size(device)),
      contexts_(all_contexts(spec_)),
      closed_text_(fmt::format("export \"{}\" is closed", spec_.name)),
      change_room_(home.executor, kChangeBytes),
      changed_(home.executor) {
  check_string(spec_.name, "export name");
  check_string(spec_.description, "export description");
}

uint16_t Export::transmission_flags(const Negotiation& negotiation) const {
  uint16_t flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn;
  flags |= read_only() ? kReadOnly : kSendTrim | kSendWriteZeroes | kSendFastZero;
  if (negotiation.structured_replies) flags |= kSendDf;
  if (negotiation.status_filter()) flags |= kBlockStatusPayload;
  return flags;
}

std::variant<ConnectionPlace, Refusal> Export::connect() {
  io::Job give_up([of = shared_from_this()] { of->place_given_up(); });
  {
    const std::lock_guard lock(places_mutex_);
    if (std::optional<Refusal> refusal = connect_refusal()) return std::move(*refusal);
    if (places_taken_ >= spec_.connections_max) {
      return Refusal{WireError::eperm,
                     fmt::format("export \"{}\" already has {} connections (limit {})", name(),
                                 places_taken_, spec_.connections_max)};
    }
    counters_.connections_now = ++places_taken_;
    ++counters_.connections_ever;
  }
  if (spec_.observer) spec_.observer->connection_opened(*this);
  return ConnectionPlace(shared_from_this(), std::move(give_up));
}

std::optional<Refusal> Export::connect_refusal() const {
  switch (state()) {
    case ExportState::sealed:
      return Refusal{WireError::eperm, fmt::format("export \"{}\" is being sealed", name())};
    case ExportState::closed:
      return Refusal{WireError::eshutdown, fmt::format("export \"{}\" is closed", name())};
    case ExportState::open:
      break;
  }
  return std::nullopt;
}

template <class Done>
io::Task<bool> Export::wait_until(Done done, io::Duration patience) {
  const io::SteadyTime deadline = home_.clock.now() + patience;
  while (!done()) {
    const io::SteadyTime now = home_.clock.now();
    if (now >= deadline) co_return false;
    co_await io::wait_for(home_.executor, home_.clock, changed_, deadline - now);
  }
  co_return true;
}

io::Task<void> Export::seal() {
  assert(home_.executor.here());
  {
    const std::lock_guard lock(places_mutex_);
    if (state() == ExportState::open) state_ = ExportState::sealed;
  }
  const auto no_write_left = [this] { return writes_under_way_ == 0; };
  const bool in_time = co_await wait_until(no_write_left, spec_.half_received_grace);
  if (in_time) co_return;
  // What is left has stopped half-way on the wire, or waits for the disk. The former is dropped;
  // what the device has already got is waited for.
  for (LiveConnection* connection : std::set(connections_)) connection->drop_half_received();
  while (writes_under_way_ > 0) co_await changed_.wait();
  assert(state() != ExportState::open && "no write begins from now on");
}

void Export::close(std::optional<std::string> text, std::optional<io::Duration> grace) {
  assert(home_.executor.here());
  {
    const std::lock_guard lock(places_mutex_);
    if (state() == ExportState::closed) return;
    state_ = ExportState::closed;
  }
  if (text) closed_text_ = std::move(*text);
  changed_.wake();
  background_.spawn(end_connections_at_close(grace.value_or(spec_.close_grace)));
}

io::Task<void> Export::end_connections_at_close(io::Duration grace) {
  const std::shared_ptr<Export> self = shared_from_this();
  const auto all_left = [this] { return connections_.empty(); };
  if (!co_await wait_until(all_left, grace)) {
    for (LiveConnection* connection : std::set(connections_)) connection->finish();
    co_await wait_until(all_left, spec_.linger);
  }
  // Those who arrive now, from a handshake that was under way, are too late.
  while (counters_.connections_now > 0) {
    for (LiveConnection* connection : std::set(connections_)) connection->abort();
    co_await changed_.wait();
  }
}

io::Task<void> Export::join() {
  assert(home_.executor.here());
  close();
  co_await background_.joined();
  while (counters_.connections_now > 0) co_await changed_.wait();
  co_await background_.joined();
}

void Export::fail(std::exception_ptr cause) {
  assert(home_.executor.here());
  if (failure_.cause) return;
  failure_.cause = cause;
  failure_.refusal = refusal_for(cause);
  io::log(io::LogLevel::error, "nbd: export \"{}\" failed: {}", name(), failure_.refusal.text);
  if (spec_.observer) spec_.observer->storage_failed(*this, cause);
}

void Export::note_refused_change(std::exception_ptr cause) {
  if (failure_.cause || spec_.kind != ExportKind::ingest) return;
  if (!spec_.writes_may_recover) return fail(std::move(cause));
  const io::SteadyTime now = home_.clock.now();
  if (now < quiet_until_) return;
  quiet_until_ = now + std::chrono::minutes(1);
  io::log(io::LogLevel::warning,
          "nbd: export \"{}\" has refused a change, later ones are tried: {}", name(),
          refusal_for(std::move(cause)).text);
}

std::optional<Refusal> Export::closed_refusal() const {
  if (state() != ExportState::closed) return std::nullopt;
  return Refusal{WireError::eshutdown, closed_text_};
}

std::optional<Refusal> Export::change_refusal() const {
  if (failure_.cause) return failure_.refusal;
  if (auto refusal = closed_refusal()) return refusal;
  if (read_only()) {
    return Refusal{WireError::eperm, fmt::format("export \"{}\" is read-only", name())};
  }
  if (state() == ExportState::sealed) {
    return Refusal{WireError::eperm, fmt::format("export \"{}\" is sealed", name())};
  }
  return std::nullopt;
}

std::optional<Refusal> Export::flush_refusal() const {
  if (failure_.cause) return failure_.refusal;
  return closed_refusal();
}

void Export::enter(LiveConnection& connection) {
  assert(home_.executor.here());
  [[maybe_unused]] const bool is_new = connections_.insert(&connection).second;
  assert(is_new && connections_.size() <= counters_.connections_now &&
         "each connection has a place");
  changed_.wake();
}

void Export::leave(LiveConnection& connection) {
  assert(home_.executor.here() && connections_.contains(&connection));
  connections_.erase(&connection);
  changed_.wake();
  if (!read_only() && state() == ExportState::open && !failure_.cause) {
    try {
      background_.spawn(commit_after_disconnect());
    } catch (const std::bad_alloc&) {
      io::log(io::LogLevel::warning,
              "nbd: no memory to commit \"{}\" after a client has left: its interval will", name());
    }
  }
}

io::Task<void> Export::commit_after_disconnect() {
  const std::shared_ptr<Export> self = shared_from_this();
  commit_.again = true;
  if (std::exchange(commit_.running, true)) co_return;
  while (std::exchange(commit_.again, false) && !failure_.cause) {
    const io::Outcome<> flushed = co_await io::attempt([this] { return device_.flush(); });
    if (flushed.failed()) note_refused_change(flushed.failure());
  }
  commit_.running = false;
}

void Export::place_given_up() {
  {
    const std::lock_guard lock(places_mutex_);
    assert(places_taken_ > 0 && "a place is given up once");
    counters_.connections_now = --places_taken_;
  }
  changed_.wake();
}

}  // namespace nbd
