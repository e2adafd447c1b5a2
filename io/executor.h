// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cassert>
#include <coroutine>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace io {

/// A coroutine that waits, as the link of the queue it waits in. It lies in the awaiter, and so in
/// the frame of the coroutine itself, which cannot end before it is resumed: to wait, and to wake
/// a waiter, needs no memory and so cannot fail.
struct Waiter {
  std::coroutine_handle<> handle;
  Waiter* next = nullptr;
};

/// First come, first served.
class WaiterQueue {
 public:
  WaiterQueue() = default;
  WaiterQueue(const WaiterQueue&) = delete;

  bool empty() const noexcept { return first_ == nullptr; }
  size_t size() const noexcept { return size_; }
  Waiter& front() const noexcept {
    assert(!empty());
    return *first_;
  }
  void push(Waiter& waiter) noexcept {
    assert(waiter.handle && "only a suspended coroutine waits");
    waiter.next = nullptr;
    *last_ = &waiter;
    last_ = &waiter.next;
    ++size_;
  }
  Waiter& pop() noexcept {
    assert(!empty());
    Waiter& waiter = *first_;
    first_ = waiter.next;
    if (first_ == nullptr) last_ = &first_;
    --size_;
    return waiter;
  }
  /// The first that `matches`, taken out of its place; null when there is none.
  template <class Matches>
  Waiter* take(Matches matches) noexcept {
    for (Waiter** link = &first_; *link != nullptr; link = &(*link)->next) {
      Waiter* const waiter = *link;
      if (!matches(*waiter)) continue;
      *link = waiter->next;
      if (*link == nullptr) last_ = link;
      --size_;
      return waiter;
    }
    return nullptr;
  }

 private:
  Waiter* first_ = nullptr;
  Waiter** last_ = &first_;
  size_t size_ = 0;
};

/// A callable that is moved, never copied (C++20 has no std::move_only_function). To make one needs
/// memory; to move it, or to put it into a JobQueue, does not.
class Job {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Job>)
      Job(F&& f)  // NOLINT(bugprone-forwarding-reference-overload): constrained above
      : body_(std::make_unique<Body<std::remove_cvref_t<F>>>(std::forward<F>(f))) {}
  void operator()() {
    assert(body_ && "a job that was moved away is not run");
    body_->run();
  }

 private:
  friend class JobQueue;
  struct Base {
    virtual ~Base() = default;
    virtual void run() = 0;
    std::unique_ptr<Base> next;  // in a JobQueue
  };
  template <class F>
  struct Body final : Base {
    explicit Body(F&& f) : f(std::move(f)) {}
    explicit Body(const F& f) : f(f) {}
    void run() override { f(); }
    F f;
  };
  explicit Job(std::unique_ptr<Base> body) : body_(std::move(body)) {}
  std::unique_ptr<Base> body_;
};

/// Jobs in the order in which they came.
class JobQueue {
 public:
  JobQueue() = default;
  JobQueue(const JobQueue&) = delete;
  ~JobQueue() {
    while (!empty()) pop();  // one by one: a long chain would need as much stack
  }

  bool empty() const noexcept { return first_ == nullptr; }
  void push(Job job) noexcept {
    assert(job.body_ && "a job is queued once");
    Job::Base* const body = job.body_.get();
    (last_ ? last_->next : first_) = std::move(job.body_);
    last_ = body;
  }
  Job pop() noexcept {
    assert(!empty());
    Job job(std::move(first_));
    first_ = std::move(job.body_->next);
    if (!first_) last_ = nullptr;
    return job;
  }
  void swap(JobQueue& other) noexcept {
    first_.swap(other.first_);
    std::swap(last_, other.last_);
  }

 private:
  std::unique_ptr<Job::Base> first_;
  Job::Base* last_ = nullptr;
};

/// One thread that runs coroutines: a ring, or the simulation of one.
class Executor {
 public:
  virtual ~Executor() = default;

  /// Resumes it after the current step, in the order of calls. Only from the executor's thread.
  virtual void resume_soon(Waiter& waiter) noexcept = 0;

  /// Runs `job` on the executor's thread, in the order of calls. From any thread. Needs no memory:
  /// whoever must not fail at this point makes the job beforehand. A job lets no exception out.
  virtual void post(Job job) = 0;

  /// True on the executor's own thread.
  virtual bool here() const = 0;
};

}  // namespace io
