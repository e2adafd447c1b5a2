// SPDX-License-Identifier: Apache-2.0
#include "io/ring.h"

#include <sys/eventfd.h>

#include <array>
#include <cassert>
#include <cerrno>
#include <condition_variable>
#include <vector>

#include "io/failure.h"

namespace io {

const char* to_text(RingTier tier) {
  switch (tier) {
    case RingTier::a:
      return "A (single issuer, deferred task running)";
    case RingTier::b:
      return "B (cooperative task running)";
    case RingTier::c:
      return "C (plain)";
  }
  return "?";
}

/// A few threads, so that calls to a file system that does not answer do not hold up the others.
class Ring::Workers {
 public:
  Workers() = default;
  Workers(const Workers&) = delete;
  ~Workers() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void enqueue(Job job) {
    {
      const std::lock_guard lock(mutex_);
      assert(!stopping_);
      if (waiting_jobs_ >= idle_threads_ && threads_.size() < kThreadsMax) add_thread();
      jobs_.push(std::move(job));
      ++waiting_jobs_;
    }
    changed_.notify_one();
  }

 private:
  static constexpr size_t kThreadsMax = 8;

  /// One thread is enough, if there can be no more.
  void add_thread() {
    try {
      threads_.emplace_back([this] { serve(); });
    } catch (const std::exception&) {
      if (threads_.empty()) throw;
    }
  }
  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_threads_;
      changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      --idle_threads_;
      if (jobs_.empty()) return;
      assert(waiting_jobs_ > 0);
      Job job = jobs_.pop();
      --waiting_jobs_;
      lock.unlock();
      job();
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  JobQueue jobs_;
  size_t waiting_jobs_ = 0, idle_threads_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

class Ring::RingAlarm final : public Clock::Alarm {
 public:
  RingAlarm(Ring& ring, SteadyTime due, Job action) : ring_(ring), action_(std::move(action)) {
    assert(ring_.here());
    place_ = ring_.alarms_.emplace(due, this);
  }
  ~RingAlarm() override {
    assert(ring_.here());
    if (place_) ring_.alarms_.erase(*place_);
  }
  void fire() {
    assert(place_ && "an alarm goes off once");
    ring_.alarms_.erase(*place_);
    place_.reset();
    Job action = std::move(action_);  // the action may drop this alarm
    action();
  }

 private:
  Ring& ring_;
  Job action_;
  std::optional<Alarms::iterator> place_;
};

namespace {

unsigned setup_flags(RingTier tier) {
  constexpr unsigned kAlways = IORING_SETUP_CQSIZE;
  switch (tier) {
    case RingTier::a:
      return kAlways | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
             IORING_SETUP_DEFER_TASKRUN;
    case RingTier::b:
      return kAlways | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN;
    case RingTier::c:
      return kAlways;
  }
  return kAlways;
}

std::system_error no_ring(int error) {
  const char* cure = "";
  if (error == -ENOSYS) cure = " (this kernel is built without io_uring; Linux 5.15 is the oldest)";
  if (error == -EPERM || error == -EACCES) {
    cure =
        " (switched off: see sysctl kernel.io_uring_disabled, or the container's seccomp profile)";
  }
  if (error == -ENOMEM) cure = " (raise the locked-memory limit: ulimit -l)";
  return failure("set up", std::string("io_uring") + cure, error);
}

}  // namespace

Ring::Ring(const RingOptions& options) {
  constexpr std::array kTiers = {RingTier::a, RingTier::b, RingTier::c};
  int error = -EINVAL;
  for (const RingTier tier : kTiers) {
    if (tier < options.best_tier) continue;
    io_uring_params params{};
    params.flags = setup_flags(tier);
    params.cq_entries = options.entries * 16;
    error = io_uring_queue_init_params(options.entries, &ring_, &params);
    tier_ = tier;
    if (error != -EINVAL) break;
  }
  if (error < 0) throw no_ring(error);
  wakeup_ = OwnedFd(::eventfd(0, EFD_CLOEXEC));
  if (!wakeup_.valid()) {
    const int cause = errno;
    io_uring_queue_exit(&ring_);
    throw failure("create", "eventfd", cause);
  }
}

Ring::~Ring() {
  workers_.reset();
  assert(in_flight_ == 0 && "every operation is awaited before its ring goes");
  assert(alarms_.empty() && "every alarm is dropped before its ring goes");
  io_uring_queue_exit(&ring_);
}

io_uring_sqe* Ring::next_sqe() {
  for (;;) {
    if (io_uring_sqe* const sqe = io_uring_get_sqe(&ring_)) return sqe;
    const int submitted = io_uring_submit(&ring_);
    if (submitted == -EBUSY || submitted == -EAGAIN) {
      // The completion queue is full: make room by collecting; nothing is resumed here.
      io_uring_get_events(&ring_);
      reap();
    } else if (submitted < 0 && submitted != -EINTR) {
      throw failure("submit to", "io_uring", submitted);
    }
  }
}

void Ring::cancel(const Handle& handle) {
  assert(here());
  if (!handle.is_under_way()) return;
  io_uring_sqe* const sqe = next_sqe();
  io_uring_prep_cancel(sqe, handle.completion, 0);
  io_uring_sqe_set_data(sqe, nullptr);
}

void Ring::post(Job job) {
  // The wake-up inside the lock too: once the ring's thread has taken the job, it may end the ring.
  const std::lock_guard lock(posted_mutex_);
  const bool was_empty = posted_.empty();
  posted_.push(std::move(job));
  if (!was_empty) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wakeup_.get(), &one, sizeof one);
  assert(written == sizeof one);
}

std::unique_ptr<Clock::Alarm> Ring::call_at(SteadyTime due, Job action) {
  return std::make_unique<RingAlarm>(*this, due, std::move(action));
}

void Ring::enqueue_blocking(Job job) {
  if (!workers_) workers_ = std::make_unique<Workers>();
  workers_->enqueue(std::move(job));
}

void Ring::run_until(const bool& done) {
  assert(here());
  for (;;) {
    resume_ready();
    if (done) return;
    turn();
    if (done) return;
  }
}

void Ring::turn() {
  if (!wakeup_armed_) arm_wakeup();
  wait_for_completions();
  reap();
  if (!wakeup_armed_) run_posted();
  fire_alarms();
}

void Ring::resume_ready() {
  // Only what is ready now: what these make ready waits for the next turn, so that completions
  // and timers are never starved.
  for (size_t left = ready_.size(); left > 0; --left) {
    ready_.pop().handle.resume();
  }
}

void Ring::run_posted() {
  JobQueue jobs;
  {
    const std::lock_guard lock(posted_mutex_);
    jobs.swap(posted_);
  }
  while (!jobs.empty()) jobs.pop()();
}

void Ring::arm_wakeup() {
  assert(!wakeup_armed_ && "one read of the eventfd at a time");
  io_uring_sqe* const sqe = next_sqe();
  io_uring_prep_read(sqe, wakeup_.get(), &wakeup_count_, sizeof wakeup_count_, 0);
  io_uring_sqe_set_data(sqe, &wakeup_completion_);
  wakeup_armed_ = true;
}

void Ring::wait_for_completions() {
  int result = 0;
  if (!ready_.empty()) {
    result = io_uring_submit_and_get_events(&ring_);
  } else {
    io_uring_cqe* first = nullptr;
    __kernel_timespec patience{};
    __kernel_timespec* limit = nullptr;
    if (!alarms_.empty()) {
      const auto left = std::max(alarms_.begin()->first - now(), Duration::zero());
      const auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
      patience = {.tv_sec = nanos / 1'000'000'000, .tv_nsec = nanos % 1'000'000'000};
      limit = &patience;
    }
    result = io_uring_submit_and_wait_timeout(&ring_, &first, 1, limit, nullptr);
  }
  const bool passing =
      result >= 0 || result == -ETIME || result == -EINTR || result == -EBUSY || result == -EAGAIN;
  if (!passing) throw failure("wait for", "io_uring", result);
}

void Ring::reap() {
  std::array<io_uring_cqe*, 256> batch;
  unsigned count = 0;
  while ((count = io_uring_peek_batch_cqe(&ring_, batch.data(), batch.size())) > 0) {
    for (unsigned i = 0; i < count; ++i) {
      auto* const completion = static_cast<Completion*>(io_uring_cqe_get_data(batch[i]));
      if (completion == nullptr) continue;  // a cancellation's own result
      if (completion == &wakeup_completion_) {
        assert(wakeup_armed_);
        wakeup_armed_ = false;
        continue;
      }
      completion->result = batch[i]->res;
      assert(in_flight_ > 0 && "an operation completes once");
      --in_flight_;
      ready_.push(*completion);
    }
    io_uring_cq_advance(&ring_, count);
  }
}

void Ring::fire_alarms() {
  const SteadyTime present = now();
  while (!alarms_.empty() && alarms_.begin()->first <= present) alarms_.begin()->second->fire();
}

}  // namespace io
