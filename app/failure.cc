// SPDX-License-Identifier: Apache-2.0
#include "app/failure.h"

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "app/api_call.h"
#include "app/exit_status.h"
#include "app/options.h"

namespace app {
namespace {

/// What to type after a refusal, where the server's own hint names an endpoint.
struct VerbHint {
  std::string_view code, hint;
};
constexpr VerbHint kVerbHints[] = {
    {"vm_not_found", "`varve vm list` shows the VMs"},
    {"vm_context_not_found", "`varve vm list` shows the VMs"},
    {"point_not_found", "`varve list VM` shows its restore points"},
    {"backup_is_not_completed", "`varve list VM` shows its restore points"},
    {"points_not_comparable", "`varve list VM` shows its chains"},
    {"backup_is_running", "`varve cancel` ends it first"},
    {"backup_has_dependents", "Delete them first, or all together with --cascade"},
    {"verification_is_running", "Wait until it has ended, or interrupt the `varve verify` of it"},
    {"no_ports", "Wait for a running backup to end; `varve status` shows them"},
    {"backup_not_found", "`varve list VM` shows its restore points, `varve status` what runs"},
    {"job_not_found", "`varve status` shows what runs"},
    {"no_vcenter",
     "`varve pull` backs up disks that can be read from here; a node needs --vm-path, --vcenter "
     "and "
     "--secret of `varve vm add --replace`"},
    {"no_credentials", "`varve vm add --replace` with --secret NAME names them"},
    {"no_disks", "`varve vm add` with --disk registers them"},
    {"credentials_error",
     "Add [secrets.NAME] with username and password to the server's varve.toml, and "
     "`systemctl reload varve`; or name another secret by `varve vm add --replace`"},
    {"vm_name_already_registered_for_another_vcenter",
     "If it has moved, `varve vm add --move`; else register the second VM under another name"},
    {"repository_not_found", "`varve repo list` shows the repositories"},
};

/// Why standard output took nothing, the first time; 0: it did. Copies report on other threads.
std::atomic<int> output_errno = 0;

std::string hint_for(const ServerRefused& refused) {
  for (const VerbHint& known : kVerbHints) {
    if (known.code == refused.code()) return std::string(known.hint);
  }
  if (refused.status() == 401) return "--token-file or $VARVE_TOKEN gives the server's token";
  return refused.hint();
}

std::string hint_for(const ServerUnreachable& silent) {
  // What OpenSSL says of an answer that is not TLS.
  const bool is_plain = silent.error().find("wrong version number") != std::string::npos;
  return is_plain ? "What answers there does not speak TLS: write http:// for it" : silent.hint();
}

}  // namespace

std::string Failure::text() const {
  if (hint.empty()) return error;
  const bool goes_on = hint.front() >= 'a' && hint.front() <= 'z';
  return error + (error.ends_with('.') ? " " : goes_on ? "; " : ". ") + hint;
}

nlohmann::ordered_json Failure::json() const {
  return {{"error", error}, {"code", code}, {"hint", hint}, {"exit_status", exit_status}};
}

void print_failure(bool json, const Failure& failure) {
  if (json) {
    const std::string line =
        failure.json().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    const bool is_written = std::fputs(line.c_str(), stdout) >= 0 &&
                            std::fputc('\n', stdout) != EOF && std::fflush(stdout) == 0;
    if (is_written) return;
  }
  const std::string text = failure.text();
  fmt::print(stderr, "{}{}\n", text.starts_with("varve ") ? "" : "varve: ", text);
}

void flush_output() noexcept {
  if (std::fflush(stdout) != 0 && output_errno == 0) output_errno = errno;
}

void require_output_written() {
  flush_output();
  if (output_errno == 0 && std::ferror(stdout) == 0) return;
  throw std::system_error(output_errno == 0 ? EIO : output_errno.load(), std::generic_category(),
                          "write standard output");
}

int exit_status_of_http(int status) {
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return kWrongUsage;
    case 401:
    case 403:
      return kDenied;
    case 404:
    case 410:
      return kNotFound;
    case 409:
    case 423:
      return kBusy;
    default:
      return kFailed;
  }
}

Failure failure_of(const std::exception& thrown) {
  Failure failure{.exit_status = kFailed, .error = thrown.what(), .code = "", .hint = ""};
  if (const auto* const refused = dynamic_cast<const ServerRefused*>(&thrown)) {
    failure.exit_status = exit_status_of_http(refused->status());
    failure.error = refused->error();
    failure.code = refused->code();
    failure.hint = hint_for(*refused);
  } else if (const auto* const silent = dynamic_cast<const ServerUnreachable*>(&thrown)) {
    failure.code = "unreachable";
    failure.hint = hint_for(*silent);
    failure.error = silent->error();
  } else if (const auto* const ended = dynamic_cast<const CommandFailed*>(&thrown)) {
    failure.exit_status = ended->exit_status();
  } else if (dynamic_cast<const UsageError*>(&thrown) != nullptr) {
    failure.exit_status = kWrongUsage;
  }
  if (failure.code.empty()) failure.code = meaning_of(failure.exit_status).word;
  return failure;
}

}  // namespace app
