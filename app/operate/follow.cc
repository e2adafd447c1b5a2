// SPDX-License-Identifier: Apache-2.0
#include "app/operate/follow.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>

#include "app/exit_status.h"
#include "app/failure.h"
#include "app/interruption.h"
#include "app/operate/progress.h"
#include "app/operate/table.h"
#include "app/polling.h"
#include "engine/values/names.h"
#include "io/percent_encoding.h"

namespace app {
namespace {

using TaskJson = nlohmann::json;

constexpr std::chrono::milliseconds kFollowInterval(1000);

/// What can be followed.
struct TaskKind {
  std::string_view name, prefix, path;
  const Selection& details;
  std::string (*progress)(const TaskJson& task, const Style& style);
  std::string_view part = "";  // of the server's answer, which is followed; "": all of it
};

const std::array<TaskKind, 3>& task_kinds() {
  static const std::array<TaskKind, 3> kinds = {{
      {"backup", engine::kJobPrefix, "/backups/", kBackup, progress_text},
      {"verification", engine::kVerificationPrefix, "/verifications/", kVerification,
       [](const TaskJson& task, const Style& style) {
         return share_text(kVerificationProgress, task, style);
       }},
      {"copy", engine::kRestorePrefix, "/restores/", kPromotion,
       [](const TaskJson& task, const Style& style) {
         return share_text(kPromotionProgress, task, style);
       },
       "promotion"},
  }};
  return kinds;
}

const TaskKind* kind_of(const std::string& id) {
  for (const TaskKind& kind : task_kinds()) {
    if (id.starts_with(kind.prefix)) return &kind;
  }
  return nullptr;
}

std::string target_of(const TaskKind& kind, const std::string& id) {
  return fmt::format("{}{}", kind.path, io::percent_encoded(id));
}

void print_task(const TaskJson& document) {
  fmt::print("{}\n", document.dump(-1, ' ', false, TaskJson::error_handler_t::replace));
  flush_output();
}

/// As `varve verify` ends, of a verification.
int status_of(const TaskJson& task) {
  if (task.at("state") != "completed") return kFailed;
  return task.value("damaged_backups", TaskJson::array()).empty() ? kOk : kDamaged;
}

}  // namespace

bool is_task(const Client& client, const std::string& id) {
  const TaskKind* const kind = kind_of(id);
  return kind != nullptr && client.is_there(target_of(*kind, id));
}

int follow(const Client& client, const std::string& id, io::Duration patience) {
  const TaskKind& kind = *kind_of(id);
  when_interrupted(client.json(),
                   fmt::format("interrupted; the {} goes on: varve watch {}", kind.name, id));
  ProgressLine line;
  Poll poll(client.server(), target_of(kind, id),
            {.interval = kFollowInterval,
             .patience = std::chrono::ceil<std::chrono::milliseconds>(patience)},
            [&line] { line.end(); });
  for (;;) {
    const TaskJson document = poll.next();
    const TaskJson task = kind.part.empty() ? document : member_of(document, kind.part);
    if (!task.is_object()) {
      throw CommandFailed(kNotFound, fmt::format("{} is not being copied", id));
    }
    const std::string state = task.value("state", "");
    const bool has_ended = state == "completed" || state == "failed" || state == "cancelled";
    if (client.json()) {
      print_task(document);
    } else if (!has_ended) {
      line.show(id, state, kind.progress(task, client.style()));
    }
    if (!has_ended) continue;
    line.end();
    if (!client.json()) fmt::print("{}", details_text(kind.details, task, client.style()));
    return status_of(task);
  }
}

}  // namespace app
