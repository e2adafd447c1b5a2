// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "app/pull/hub.h"

namespace app {

/// The backup under way. Whatever ends the pull before it is published cancels it: at the server
/// nothing is left, and the next pull may begin.
class BackupUnderWay {
 public:
  explicit BackupUnderWay(Hub& hub) : hub_(hub) {}

  /// `keep`: a failure leaves what has arrived at the server.
  void begin(const std::string& id, bool keep = false) {
    const std::lock_guard lock(mutex_);
    id_ = id;
    keep_ = keep;
  }
  void published() { begin(""); }
  /// Never throws: a server that is not there any more ends the backup by itself.
  void cancel(const std::string& reason) noexcept {
    const std::lock_guard lock(mutex_);
    if (id_.empty()) return;
    try {
      hub_.cancel(id_, reason);
    } catch (const std::exception&) {
    }
    id_.clear();
  }

  /// After a failure; never throws. The id of the backup that can be resumed, or "".
  std::string give_up(const std::string& reason) noexcept;

  /// On any thread: the backup is cancelled, and whoever writes to it fails.
  void interrupt() noexcept {
    interrupted_ = true;
    cancel("the pull was interrupted");
  }
  bool is_interrupted() const { return interrupted_; }
  void require_uninterrupted() const {
    if (interrupted_) throw std::runtime_error("interrupted");
  }

 private:
  Hub& hub_;
  std::mutex mutex_;
  std::string id_;  // guarded by mutex_; "": none
  bool keep_ = false;
  std::atomic<bool> interrupted_ = false;
};

/// Runs a command that makes backups, and says how it ended: the exit status, 0 in good order. A
/// failure or a signal cancels the backup under way. Once in a process.
int run_backup_command(const PullOptions& options,
                       const std::function<void(Hub&, BackupUnderWay&)>& work);

}  // namespace app
