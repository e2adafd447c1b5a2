// SPDX-License-Identifier: Apache-2.0
#include "app/pull/under_way.h"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <utility>

#include "app/copy_report.h"
#include "app/exit_status.h"
#include "app/interruption.h"
#include "io/log.h"

namespace app {
namespace {

/// A signal ends the backup at the server, and with it the command, which then tidies up at its
/// source. What hangs there is left behind after a while.
constexpr std::chrono::seconds kTidyingPatience(20);

}  // namespace

std::string BackupUnderWay::give_up(const std::string& reason) noexcept {
  std::string id;
  {
    const std::lock_guard lock(mutex_);
    if (keep_) id = std::exchange(id_, "");
  }
  if (id.empty()) {
    cancel(reason);
    return "";
  }
  try {
    if (hub_.state_of(id).is_active) hub_.fail(id, reason);
    if (hub_.state_of(id).is_resumable) return id;
  } catch (const std::exception&) {
    // A server that is not there keeps it without being told.
  }
  return "";
}

int run_backup_command(const PullOptions& options,
                       const std::function<void(Hub&, BackupUnderWay&)>& work) {
  io::configure_log(io::LogFormat::text, io::LogLevel::error);
  std::signal(SIGPIPE, SIG_IGN);
  // Never freed: the signal's thread outlives everything.
  Hub& hub = *new Hub({options.server, options.token, options.tls.certificates});
  BackupUnderWay& under_way = *new BackupUnderWay(hub);
  when_interrupted(
      {.begin = [&under_way] { under_way.interrupt(); }, .patience = kTidyingPatience});
  Failure failure;
  try {
    work(hub, under_way);
    return kOk;
  } catch (const UsageError&) {
    under_way.cancel("the command failed");
    throw;
  } catch (const ServerRefused& refused) {
    failure = failure_of(refused);
    if (refused.status() == 400) failure.exit_status = kBusy;  // what is registered forbids it
    if (refused.code() == "job_not_running")
      failure.exit_status = kFailed;  // it has ended meanwhile
  } catch (const PullRefused& refused) {
    failure = failure_of(CommandFailed(kBusy, refused.what()));
  } catch (const std::exception& thrown) {
    failure = failure_of(thrown);
  }
  const std::string text = failure.text();
  const std::string kept = under_way.is_interrupted() ? "" : under_way.give_up(text);
  if (!kept.empty()) {
    failure.error = text;
    failure.hint = fmt::format("What has arrived is kept: --resume {} goes on with it", kept);
  }
  under_way.cancel(text);
  if (under_way.is_interrupted()) {
    failure = failure_of(CommandFailed(kInterrupted, "interrupted; the backup is cancelled"));
  }
  report_error(options.json, failure);
  return failure.exit_status;
}

}  // namespace app
