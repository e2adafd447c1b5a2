// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/image_run.h"

#include <fmt/format.h>

#include "io/task_scope.h"
#include "qcow/image/create.h"
#include "tests/crash/client.h"
#include "tests/crash/manifest.h"

namespace crash {

/// One process that serves the image, from opening it to its end.
struct ImageRun::Session {
  std::unique_ptr<qcow::Image> image;
  std::optional<NbdServer> server;
  std::vector<std::unique_ptr<Client>> clients;
  io::TaskScope work;
  std::vector<size_t> taken;  // by client: the next op to look at
  bool stopping = false;      // a kill, or a fault: nothing new begins
  bool killed = false;        // nobody hears of what it still does
  bool somebody_is_done = false;
};

ImageRun::ImageRun(Campaign& campaign, uint64_t seed, Shape shape, std::vector<Op> script)
    : campaign_(campaign), seed_(seed), shape_(std::move(shape)), script_(std::move(script)) {
  Prepared prepared = prepare_disk(seed, shape_);
  const State start = std::move(prepared.disk);
  sent_below_ = std::move(prepared.sent_below);
  if (shape_.elides) shape_.options.elide_by = manifest_path;
  if (shape_.publishes) shape_.options.sums_path = manifest_path(kPath);
  State made = start;
  if (shape_.made_in_run) {
    World before(start);
    before.scheduler.run(qcow::create(before.runtime(), kPath, create_options(shape_)));
    made = before.disk.live();
  }
  World reader(made);
  model_.emplace(read_disk(reader, kPath));
  world_.emplace(start, seed_of(seed, 4));
}

ImageRun::ImageRun(Campaign& campaign, uint64_t seed, Shape shape, std::vector<Op> script,
                   State start, Bytes content, std::string cut_so_far, int generation)
    : campaign_(campaign),
      seed_(seed),
      shape_(std::move(shape)),
      script_(std::move(script)),
      cut_so_far_(std::move(cut_so_far)),
      generation_(generation) {
  model_.emplace(std::move(content));
  world_.emplace(std::move(start), seed_of(seed, 4));
}

ImageRun::~ImageRun() = default;

std::optional<Failure> ImageRun::run() {
  world_->files.faults = shape_.faults;
  world_->scheduler.run(play());
  if (!complaint_.empty()) return Failure{complaint_, cut_so_far_ + "0"};
  return judge_cuts();
}

io::Task<void> ImageRun::play() {
  if (shape_.made_in_run && generation_ == 0) {
    bool made = true;
    try {
      co_await qcow::create(world_->runtime(), kPath, create_options(shape_));
    } catch (const std::system_error& failure) {
      made = false;
      if (shape_.faults.is_silent()) complaint_ = fmt::format("creation: {}", failure.what());
    }
    exists_from_ = made ? world_->disk.events() : ~uint64_t{0};
    if (!made) co_return;
  }
  for (size_t at = 0; at <= script_.size() && !broken_ && complaint_.empty();) {
    size_t end = at;
    const auto is_end = [&](const Op& op) {
      return !op.dropped && (op.kind == Op::Kind::reopen || op.kind == Op::Kind::kill);
    };
    while (end < script_.size() && !is_end(script_[end])) ++end;
    const bool kill = end < script_.size() && script_[end].kind == Op::Kind::kill;
    co_await play_session(at, end, kill);
    // Killed while a sync failed: the kernel drops such pages, and tells nobody who comes later.
    if (world_->files.faults.has_lost_data()) broken_ = true;
    at = end + 1;
  }
  co_await killed_.join();
}

/// From opening the image to its end, one way or another.
io::Task<void> ImageRun::play_session(size_t first, size_t end, bool kill) {
  auto session = std::make_unique<Session>();
  std::string trouble;
  try {
    co_await open_image(*session);
    co_await note_what_is_left(*session->image);
  } catch (const std::exception& failure) {
    trouble = failure.what();
  }
  if (!trouble.empty()) {
    broken_ = true;
    if (shape_.faults.is_silent()) complaint_ = fmt::format("opening: {}", trouble);
  }
  if (!session->image) co_return;
  begin_work(*session, first, end);
  if (kill) {
    while (!session->somebody_is_done) co_await world_->scheduler.turn(Turn::client);
    session->stopping = session->killed = true;
    world_->files.kill();
    killed_.spawn(bury(std::move(session)));
    co_return;
  }
  co_await session->work.join();
  const uint64_t closing_at = world_->disk.moment();
  if (session->server) co_await session->server->stop(session->clients, broken_);
  co_await end_session(*session, closing_at, end == script_.size());
}

/// The lock of a killed process is given back when its last write has landed; until then whoever
/// opens the image is refused, and tries again.
io::Task<void> ImageRun::open_image(Session& session) {
  constexpr std::string_view kInUse = "in use by another process";
  while (!session.image) {
    std::optional<std::string> refused;
    try {
      session.image = co_await qcow::Image::open(world_->runtime(), kPath, shape_.options);
    } catch (const std::exception& failure) {
      refused = failure.what();
      if (killed_.running() == 0 || refused->find(kInUse) == std::string::npos) throw;
    }
  }
}

void ImageRun::begin_work(Session& session, size_t first, size_t end) {
  session.taken.assign(shape_.clients, first);
  session.stopping = broken_;
  if (shape_.over_nbd) session.server.emplace(*world_, *session.image);
  for (uint32_t number = 0; number < shape_.clients; ++number) {
    if (session.server) {
      session.clients.push_back(session.server->connect());
    } else {
      session.clients.push_back(std::make_unique<DirectClient>(*world_, *session.image));
    }
    for (uint32_t i = 0; i < shape_.depth; ++i) session.work.spawn(work(session, number, end));
  }
}

/// What is left of a killed process: writes in flight, and memory.
io::Task<void> ImageRun::bury(std::unique_ptr<Session> session) {
  co_await session->image->abandon();
  if (session->server) {
    for (auto& client : session->clients) static_cast<NbdClient&>(*client).stream().abort();
  }
  co_await session->work.join();
  if (session->server) co_await session->server->stop(session->clients, true);
}

io::Task<void> ImageRun::end_session(Session& session, uint64_t closing_at, bool is_last) {
  std::string trouble;
  campaign_.elided_bytes += session.image->counters().bytes_elided;
  try {
    if (broken_) {
      co_await session.image->abandon();
    } else if (is_last && shape_.publishes) {
      co_await publish(*session.image, closing_at);
    } else {
      co_await session.image->close();
      model_->flushed(closing_at, world_->disk.moment());
    }
  } catch (const std::exception& failure) {
    trouble = failure.what();
  }
  if (trouble.empty()) co_return;
  co_await session.image->abandon();
  broken_ = true;
  if (shape_.faults.is_silent()) complaint_ = fmt::format("closing: {}", trouble);
}

/// As the engine does it, without the sidecar.
io::Task<void> ImageRun::publish(qcow::Image& image, uint64_t closing_at) {
  const std::string sums = manifest_path(kPath);
  // Of a process that ended while it sealed.
  if (world_->disk.find(sums) != nullptr) co_await world_->files.remove(sums);
  co_await image.seal();
  model_->flushed(closing_at, world_->disk.moment());
  co_await image.publish_header({}, 1);
  published_at_ = world_->disk.moment();
  co_await image.close();
}

/// After a kill the disk holds some of what was not flushed; from now on that is what is there.
io::Task<void> ImageRun::note_what_is_left(qcow::Image& image) {
  Bytes found(model_->size());
  const uint64_t now = world_->disk.moment();
  co_await image.read(0, found);
  if (const auto wrong = model_->judge(found, now)) {
    complaint_ = fmt::format("after a restart: {}", *wrong);
  }
  model_->restarted(world_->disk.moment(), found);
}

void ImageRun::trace(const Op& op, const char* step) {
  if (campaign_.only_cut.empty()) return;
  trace_.push_back(fmt::format("event {}: {} {}", world_->disk.events(), op.text(), step));
}

std::optional<size_t> ImageRun::next_op(Session& session, uint32_t client, size_t end) {
  for (size_t& at = session.taken[client]; at < end;) {
    const Op& op = script_[at++];
    if (op.client == client && !op.dropped && op.kind < Op::Kind::reopen) return at - 1;
  }
  return std::nullopt;
}

io::Task<void> ImageRun::work(Session& session, uint32_t number, size_t end) {
  Client& client = *session.clients[number];
  while (!session.stopping) {
    const auto next = next_op(session, number, end);
    if (!next) break;
    co_await world_->scheduler.turn(Turn::client);
    const Op& op = script_[*next];
    std::string trouble;
    try {
      trace(op, "begins");
      if (!session.stopping) co_await perform(session, client, op);
      trace(op, "ends");
    } catch (const std::exception& failure) {
      trouble = failure.what();
    }
    if (trouble.empty() || session.stopping) continue;
    session.stopping = broken_ = true;
    if (shape_.faults.is_silent()) complaint_ = fmt::format("{}: {}", op.text(), trouble);
  }
  session.somebody_is_done = true;
}

io::Task<void> ImageRun::perform(Session& session, Client& client, const Op& op) {
  if (op.kind == Op::Kind::flush) {
    const uint64_t sent = world_->disk.moment();
    co_await client.flush();
    if (!session.stopping) model_->flushed(sent, world_->disk.moment());
    co_return;
  }
  // Two that share a sector have no order; the later one waits a while, or is left out.
  for (int i = 0; i < 10 && model_->busy(op.offset, op.length); ++i) {
    co_await world_->scheduler.turn(Turn::client);
  }
  if (op.length == 0 || model_->busy(op.offset, op.length)) co_return;
  if (op.kind == Op::Kind::read) {
    co_await expect_read(session, client, op);
  } else {
    co_await change(session, client, op);
  }
}

io::Task<void> ImageRun::change(Session& session, Client& client, const Op& op) {
  const bool zero = op.kind != Op::Kind::write && op.kind != Op::Kind::write_fua;
  Bytes bytes = zero ? Bytes(op.length) : bytes_of(op);
  const uint64_t change = model_->begin(world_->disk.moment(), op.offset, bytes);
  const bool fua = op.kind == Op::Kind::write_fua;
  std::exception_ptr failure;
  try {
    if (!zero) {
      co_await client.write(op.offset, std::move(bytes), fua);
    } else if (op.kind == Op::Kind::discard) {
      co_await client.discard(op.offset, op.length);
    } else {
      co_await client.zero(op.offset, op.length, op.kind == Op::Kind::zero_no_hole);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  if (session.killed) co_return;
  if (failure) {
    model_->failed(change);
    std::rethrow_exception(failure);
  }
  model_->acknowledged(world_->disk.moment(), change);
  if (fua) model_->durable(world_->disk.moment(), change);
}

io::Task<void> ImageRun::expect_read(Session& session, Client& client, const Op& op) {
  const auto part = [&] {
    const auto from = model_->content().begin() + static_cast<ptrdiff_t>(op.offset);
    return Bytes(from, from + static_cast<ptrdiff_t>(op.length));
  };
  const Bytes before = part();
  const Bytes found = co_await client.read(op.offset, op.length);
  // A write that came meanwhile may show or not.
  if (session.stopping || model_->busy(op.offset, op.length) || part() != before) co_return;
  if (found != before && complaint_.empty()) {
    complaint_ = fmt::format("{} does not give what was written", op.text());
  }
}

}  // namespace crash
