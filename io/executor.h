#pragma once

#include <coroutine>
#include <memory>
#include <utility>

namespace io {

/// A callable that is moved, never copied (C++20 has no std::move_only_function).
class Job {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Job>)
      Job(F&& f)  // NOLINT(bugprone-forwarding-reference-overload): constrained above
      : body_(std::make_unique<Body<std::remove_cvref_t<F>>>(std::forward<F>(f))) {}
  void operator()() { body_->run(); }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual void run() = 0;
  };
  template <class F>
  struct Body final : Base {
    explicit Body(F&& f) : f(std::move(f)) {}
    explicit Body(const F& f) : f(f) {}
    void run() override { f(); }
    F f;
  };
  std::unique_ptr<Base> body_;
};

/// One thread that runs coroutines: a ring, or the simulation of one.
class Executor {
 public:
  virtual ~Executor() = default;

  /// Resumes `what` after the current step, in the order of calls. Only from the executor's thread.
  virtual void resume_soon(std::coroutine_handle<> what) = 0;

  /// Runs `job` on the executor's thread, in the order of calls. From any thread.
  virtual void post(Job job) = 0;

  /// True on the executor's own thread.
  virtual bool here() const = 0;
};

}  // namespace io
