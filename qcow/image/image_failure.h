// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <utility>

namespace qcow {

/// How an image ended, if it did. The first failure is final: nothing that came after the last good
/// commit can be trusted (X9). Belongs to one executor thread.
class ImageFailure {
 public:
  /// `on_first` is called with the first failure, once; it throws nothing.
  explicit ImageFailure(std::function<void()> on_first) : on_first_(std::move(on_first)) {}
  ImageFailure(const ImageFailure&) = delete;

  explicit operator bool() const { return cause_ != nullptr; }
  std::exception_ptr cause() const { return cause_; }
  void require_none() const {
    if (cause_) std::rethrow_exception(cause_);
  }
  void fail(std::exception_ptr cause) noexcept {
    if (cause_) return;
    cause_ = std::move(cause);
    on_first_();
  }

  /// What was accepted may be missing, at an unknown place: another program has truncated the file,
  /// a sync failed, or a step that moves bytes out of memory and changes their mapping did not end.
  bool content_unknown() const { return content_unknown_; }
  void lose_content() { content_unknown_ = true; }
  /// Around such a step: an exception inside it leaves the content unknown.
  void begin_step() {
    require_none();
    content_unknown_ = true;
  }
  void end_step() { content_unknown_ = false; }

  /// A failed image is still read while all that was accepted is on the disk, in memory, or known
  /// to be lost. After a failed sync this is unknown: the kernel may have dropped the pages that it
  /// could not write, and the file has older bytes there. What another program has truncated would
  /// read as zeroes.
  void require_readable() const {
    if (closed_ || content_unknown_) require_none();
  }
  /// From now on nothing is read after a failure.
  void close() { closed_ = true; }

 private:
  std::function<void()> on_first_;
  std::exception_ptr cause_;
  bool content_unknown_ = false;
  bool closed_ = false;
};

}  // namespace qcow
