// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>

#include "app/api_call.h"
#include "app/commands.h"
#include "app/copy_report.h"
#include "app/exit_status.h"
#include "app/failure.h"
#include "app/interruption.h"
#include "app/operate/text.h"
#include "app/polling.h"
#include "io/counted.h"
#include "io/log.h"
#include "io/percent_encoding.h"

/// `varve verify`: a client of a running `varve serve`, which reads the disks.
namespace app {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::milliseconds kPollInterval(500);
/// How long the server has to answer that a verification is cancelled.
constexpr std::chrono::seconds kCancelPatience(5);

class Verify {
 public:
  explicit Verify(const VerifyOptions& options)
      : options_(options), server_{options.server, options.token, options.certificates} {}

  /// The exit status.
  int run(const std::atomic<bool>& interrupted) {
    Json task = begin();
    const std::string target = "/verifications/" + task.at("verification_id").get<std::string>();
    Poll poll(server_, target,
              {.interval = kPollInterval,
               .patience = std::chrono::ceil<std::chrono::milliseconds>(options_.server_patience)});
    size_t shown = 0;
    for (;;) {
      const Json& images = task.at("images");
      for (; shown < images.size(); ++shown) show_image(images[shown]);
      if (task.at("state") != "running") break;
      if (interrupted) {
        task = api_call(server_, {.method = "DELETE", .target = target});
        continue;
      }
      show_progress(task);
      task = poll.next();
    }
    show_end(task);
    if (task.at("state") == "failed") throw std::runtime_error(task.at("error"));
    if (task.at("state") == "cancelled" && !interrupted) {
      throw std::runtime_error(
          "the verification was cancelled at the server; what is not named above was not verified");
    }
    return task.at("damaged_backups").empty() ? 0 : kDamaged;
  }

 private:
  Json begin() {
    Json body = {{"skip_days", options_.skip_days},
                 {"bytes_per_second", options_.bytes_per_second}};
    if (!options_.readers.empty()) body["readers"] = options_.readers;
    std::string target = "/verifications";
    if (!options_.point.empty()) {
      target = fmt::format("/backups/{}/verify", io::percent_encoded(backup_of_point()));
    } else if (!options_.vm_name.empty()) {
      body["vm_name"] = options_.vm_name;
    }
    try {
      return api_call(server_, {.method = "POST", .target = target, .body = body.dump()});
    } catch (const ServerRefused& refused) {
      if (refused.code() == "vm_context_not_found") refuse_unknown_point(server_, options_.vm_name);
      throw;
    }
  }

  std::string backup_of_point() {
    const Json found = api_call(
        server_,
        {.target = fmt::format("/points?vm_name={}&point={}", io::percent_encoded(options_.vm_name),
                               io::percent_encoded(options_.point))});
    return found.at("points").at(0).at("backup_id");
  }

  void show_image(const Json& image) {
    if (options_.json) {
      nlohmann::ordered_json line = {{"event", "image"}};
      line.update(image);
      print_json_line(line);
      return;
    }
    fmt::print("{} disk {}  {}  {}\n", image.at("vm_name").get<std::string>(),
               image.at("disk_id").get<uint32_t>(), image.at("backup_id").get<std::string>(),
               verdict_of(image));
    for (const Json& range : image.at("damaged")) {
      show_range(range, "");
    }
    if (!image.at("second_reader").is_null()) show_second(image.at("second_reader"));
    flush_output();
  }

  static void show_range(const Json& range, const std::string& by) {
    const uint64_t offset = range.at("offset"), length = range.at("length");
    fmt::print("    bytes {} to {}: {}{}\n", offset, offset + length - 1,
               range.at("what").get<std::string>(), by);
  }

  /// What share of the stored bytes the second reader confirms or not.
  static void show_second(const Json& second) {
    const std::string reader = second.at("reader"), problem = second.value("problem", "");
    const uint64_t stored = second.at("stored_bytes"), covered = second.at("covered_bytes");
    const double percent =
        stored == 0 ? 100 : 100 * static_cast<double>(covered) / static_cast<double>(stored);
    fmt::print("    {}: {} of {} stored compared ({:.1f} %){}{}\n", reader, size_text(covered),
               size_text(stored), percent, problem.empty() ? "" : "; ", problem);
    for (const Json& range : second.at("damaged")) show_range(range, ", by " + reader);
  }

  static std::string verdict_of(const Json& image) {
    const std::string result = image.at("result");
    if (result == "sound")
      return fmt::format("sound, {} compared", size_text(compared_bytes(image)));
    if (result == "without_manifest") return "of an earlier version: tables sound, content unknown";
    std::string text = "DAMAGED";
    if (const uint64_t damaged = image.at("damaged_bytes"); damaged > 0) {
      text += fmt::format(": {} not what was sent",
                          size_text(damaged) + (damaged == 1 ? " is" : " are"));
    }
    const std::string problem = image.value("problem", "");
    return problem.empty() ? text : text + ": " + problem;
  }

  /// By the reader that has compared most.
  static uint64_t compared_bytes(const Json& image) {
    const uint64_t bytes = image.at("data_bytes");
    const Json& second = image.at("second_reader");
    return second.is_null() ? bytes : std::max<uint64_t>(bytes, second.at("covered_bytes"));
  }

  void show_progress(const Json& task) {
    if (options_.json) {
      print_json_line({{"event", "progress"},
                       {"read_bytes", task.at("read_bytes").get<uint64_t>()},
                       {"total_bytes", task.at("total_bytes").get<uint64_t>()}});
    } else if (::isatty(STDERR_FILENO) == 1) {
      const auto total = static_cast<double>(task.at("total_bytes").get<uint64_t>());
      const auto read = static_cast<double>(task.at("read_bytes").get<uint64_t>());
      fmt::print(stderr, "\r{:.0f} %\r", total > 0 ? 100 * read / total : 100);
    }
  }

  void show_end(const Json& task) {
    if (options_.json) {
      print_json_line({{"event", "end"},
                       {"verification_id", task.at("verification_id").get<std::string>()},
                       {"state", task.at("state").get<std::string>()},
                       {"image_count", task.at("images").size()},
                       {"skipped_count", task.at("skipped_count").get<uint64_t>()},
                       {"read_bytes", task.at("read_bytes").get<uint64_t>()},
                       {"damaged_backups", task.at("damaged_backups")}});
      return;
    }
    fmt::print("{}: {}, {} skipped, {} read\n", task.at("state").get<std::string>(),
               io::counted(task.at("images").size(), "image"),
               task.at("skipped_count").get<uint64_t>(),
               size_text(task.at("read_bytes").get<uint64_t>()));
    if (task.at("damaged_backups").empty()) return;
    fmt::print("backups that read what is damaged:\n");
    for (const Json& id : task.at("damaged_backups")) {
      fmt::print("    {}\n", id.get<std::string>());
    }
  }

  const VerifyOptions& options_;
  const HttpServerAddress server_;
};

}  // namespace

int run_verify(const VerifyOptions& options) {
  io::configure_log(io::LogFormat::text, io::LogLevel::error);
  std::signal(SIGPIPE, SIG_IGN);
  // Never freed: the signal's thread outlives everything.
  std::atomic<bool>& interrupted = *new std::atomic<bool>(false);
  const bool json = options.json;
  when_interrupted({.begin = [&interrupted] { interrupted = true; },
                    .patience = kCancelPatience,
                    .last_words =
                        [json] {
                          report_error(json, failure_of(CommandFailed(
                                                 kInterrupted,
                                                 "interrupted; the server does not answer, so the "
                                                 "verification may go on")));
                        }});
  Failure failure;
  try {
    const int status = Verify(options).run(interrupted);
    if (!interrupted) return status;
    failure = failure_of(CommandFailed(kInterrupted, "interrupted; the verification is cancelled"));
  } catch (const std::exception& thrown) {
    failure = failure_of(thrown);
    if (interrupted) {
      failure.error = "interrupted; the verification may go on: " + failure.error;
      failure.exit_status = kInterrupted;
      failure.code = meaning_of(kInterrupted).word;
    }
  }
  report_error(options.json, failure);
  return failure.exit_status;
}

}  // namespace app
