// SPDX-License-Identifier: Apache-2.0
#include "engine/verifications.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/jobs/job_view.h"
#include "engine/jobs/repository_watch.h"
#include "engine/repository/marker.h"
#include "engine/repository/proof_file.h"
#include "engine/values/layout.h"
#include "engine/values/names.h"
#include "engine/values/refusal.h"
#include "engine/wanted.h"
#include "io/call_on.h"
#include "io/counted.h"
#include "io/log.h"
#include "io/outcome.h"
#include "io/planted_bug.h"

namespace engine {
namespace {

constexpr size_t kKept = 100;
constexpr size_t kRangesNamed = 8;
constexpr int64_t kSecondsPerDay = int64_t{24} * 60 * 60;

using UnderWay = std::shared_ptr<VerificationUnderWay>;

Verification seen(const VerificationUnderWay& under_way) {
  Verification task = under_way.task;
  task.read_bytes = under_way.progress->read_bytes;
  return task;
}

UnderWay require_known(const Verifications& known, const std::string& id) {
  const auto found = std::ranges::find(known, id, [](const UnderWay& one) { return one->task.id; });
  if (found == known.end()) throw refusals::verification_not_found(id);
  return *found;
}

/// The points of a backup and all that they stand on.
std::vector<Point> with_parents(Catalogue& catalogue, const std::string& backup_id) {
  const Job job = require_backup(catalogue, backup_id);
  if (job.state != JobState::completed) {
    throw refusals::backup_is_not_completed(backup_id, to_text(job.state));
  }
  std::vector<Point> points;
  for (Point& point : catalogue.points.of_job(backup_id)) {
    for (std::optional<Point> at = std::move(point); at;) {
      std::string parent = at->parent_image_id;
      points.push_back(*std::exchange(at, std::nullopt));
      if (!parent.empty()) at = catalogue.points.find(parent);
    }
  }
  return points;
}

/// Older ones first, so that what damages many points is known early.
std::vector<Point> points_of(Catalogue& catalogue, const NewVerification& request) {
  std::vector<Point> points;
  if (!request.backup_id.empty()) {
    points = with_parents(catalogue, request.backup_id);
  } else {
    if (!request.vm_name.empty() && !catalogue.vms.find(request.vm_name)) {
      throw refusals::vm_context_not_found(request.vm_name);
    }
    points = catalogue.points.list("");
    std::erase_if(points, [&](const Point& point) {
      return !request.vm_name.empty() && point.vm_name != request.vm_name;
    });
  }
  const auto age = [](const Point& point) {
    return std::tie(point.completed_at, point.vm_name, point.place, point.disk_index);
  };
  std::ranges::sort(points, std::less<>(), age);
  return points;
}

bool is_proven(Catalogue& catalogue, const Point& point, Time since) {
  const auto last = catalogue.verifications.find(point.image_id);
  return last && last->result == VerificationResult::sound && last->verified_at > since;
}

/// "131072 bytes are not what was sent: 327680+65536, 2621440+65536", in guest bytes.
std::string ranges_text(uint64_t bytes, const std::vector<Damage>& ranges) {
  std::string text = fmt::format("{} bytes are not what was sent", bytes);
  const size_t named = std::min(ranges.size(), kRangesNamed);
  for (size_t at = 0; at < named; ++at) {
    text += fmt::format("{}{}+{}", at == 0 ? ": " : ", ", ranges[at].offset, ranges[at].length);
  }
  return named < ranges.size() ? text + ", ..." : text;
}

Notification damage_found(const Verification& task, const ImageVerification& image,
                          std::string text) {
  Notification told;
  told.event = NotificationEvent::damaged;
  told.vm_name = image.vm_name;
  told.backup_id = image.job_id;
  told.text = std::move(text);
  told.details = {{"disk_id", std::to_string(image.disk_index)},
                  {"damaged_bytes", std::to_string(image.damaged_bytes)},
                  {"verification_id", task.id},
                  {"damaged_backups", fmt::format("{}", fmt::join(task.damaged_backups, ","))}};
  return told;
}

/// `readers`: every backup that reads it. Returns what somebody should hear of it.
Notification note_damage(Verification& task, const ImageVerification& image,
                         std::vector<std::string> readers) {
  std::set<std::string> damaged(task.damaged_backups.begin(), task.damaged_backups.end());
  damaged.insert(readers.begin(), readers.end());
  task.damaged_backups.assign(damaged.begin(), damaged.end());
  std::string text = image.problem;
  const bool by_second = image.damaged.empty() && image.second_reader;
  const std::vector<Damage>& ranges = by_second ? image.second_reader->damaged : image.damaged;
  if (!ranges.empty()) {
    text += (text.empty() ? "" : "; ") + ranges_text(image.damaged_bytes, ranges);
  }
  std::erase(readers, image.job_id);
  if (!readers.empty()) {
    text += fmt::format("; so are the backups on it: {}", fmt::join(readers, ", "));
  }
  const io::LogFields fields{
      .job = image.job_id, .vm = image.vm_name, .disk = image.disk_index, .error = text};
  io::log(io::LogLevel::error, fields, "backup {} of VM {}: disk {} is damaged: {}", image.job_id,
          image.vm_name, image.disk_index, text);
  return damage_found(task, image,
                      fmt::format("backup {} of VM {}: disk {} is damaged: {}", image.job_id,
                                  image.vm_name, image.disk_index, text));
}

/// For a rebuild. The point is there, or is deleted while nothing else of it is made: the turn. It
/// is derived from the catalogue, so it is worth no failure.
io::Task<void> write_proof(Core& core, Point point, ImageVerification proof) {
  const io::Grant turn = co_await core.turns.take(point.repository_id, point.context_id);
  if (!core.catalogue->points.find(point.image_id)) co_return;
  try {
    const std::string path = proof_path(point.image_path);
    const std::string text = encode_proof_file(proof);
    PLANTED_BUG(proof_in_place, const auto file = co_await core.parts.home.files.open(
                                    path, io::OpenMode::own_or_create);
                co_await file->write(0, std::as_bytes(std::span(text))); co_return )
    co_await io::replace_text(core.parts.home, path, text);
  } catch (const std::exception& failure) {
    io::log(io::LogLevel::warning, "the proof of {} is in the catalogue only: {}", point.image_path,
            failure.what());
  }
}

/// Nothing is said of an image whose file system is away. A point may lie in a former directory of
/// its repository. Throws repository_unavailable.
io::Task<void> require_readable(Core& core, std::optional<Repository> repository, Point point) {
  if (repository) co_await require_available(core, *repository);
  try {
    co_await require_mounted(core.files(), point.image_path);
  } catch (const std::exception& failure) {
    throw refusals::repository_unavailable(point.repository_id, failure.what());
  }
}

io::Task<void> verify_point(Core& core, UnderWay under_way, Point point) {
  // It may have been deleted while others were read.
  if (!core.catalogue->points.find(point.image_id)) co_return;
  const auto repository = core.catalogue->repositories.find(point.repository_id);
  co_await require_readable(core, repository, point);
  const auto parent = core.catalogue->points.find(point.parent_image_id);
  const io::Runtime data = core.least_loaded();
  ImageVerification image{.image_id = point.image_id,
                          .job_id = point.job_id,
                          .vm_name = point.vm_name,
                          .disk_index = point.disk_index};
  const std::string parent_path = parent ? parent->image_path : "";
  const auto there = [&] {
    return verify_image(data, image, point.image_path, parent_path, under_way->readers,
                        under_way->progress);
  };
  ImageVerification done = co_await io::call_on(data.executor, core.parts.home.executor, there);
  // What cannot be read proves nothing while its file system may have gone.
  const bool is_damaged = done.result == VerificationResult::damaged;
  if (is_damaged) co_await require_readable(core, repository, point);
  done.verified_at = core.now();
  std::vector<std::string> readers;
  if (is_damaged) {
    readers = co_await readers_of_damage(core, point, done);
    done = co_await with_first_ranges(core, point, std::move(done));
  }
  core.catalogue->verifications.put(done);
  ++core.tally.verified_images[{under_way->task.begun_by, done.result}];
  if (is_damaged) {
    Notification told = note_damage(under_way->task, done, std::move(readers));
    told.repository_id = point.repository_id;
    core.tell(std::move(told));
  }
  co_await write_proof(core, point, done);
  under_way->task.images.push_back(std::move(done));
}

/// One that could not be read keeps no other from its proof; any other failure ends them all.
void note_unread(VerificationUnderWay& under_way, const Point& point, io::Outcome<> proved) {
  try {
    proved.take();
  } catch (const Refusal& refusal) {
    if (refusal.code != "repository_unavailable") throw;
    if (under_way.unread.empty()) under_way.unread_cause = refusal.what();
    under_way.unread.push_back(point.image_id);
  }
}

io::Task<void> run_verification(Core& core, UnderWay under_way, std::vector<Point> points) {
  Verification& task = under_way->task;
  io::Outcome<> done = co_await io::attempt([&]() -> io::Task<void> {
    for (const Point& point : points) {
      if (under_way->progress->cancelled) break;
      under_way->reading = point.job_id;
      io::Outcome<> proved =
          co_await io::attempt([&] { return verify_point(core, under_way, point); });
      note_unread(*under_way, point, std::move(proved));
    }
  });
  task.state = VerificationState::completed;
  if (under_way->progress->cancelled) {
    task.state = VerificationState::cancelled;
  } else if (done.failed()) {
    task.state = VerificationState::failed;
    task.error = text_of(done.failure());
  } else if (!under_way->unread.empty()) {
    task.state = VerificationState::failed;
    task.error = fmt::format("{} could not be read: {}",
                             io::counted(under_way->unread.size(), "image"),
                             under_way->unread_cause);
  }
  task.ended_at = core.now();
  core.tally.verified_bytes[task.begun_by] += under_way->progress->read_bytes;
  io::log(task.state == VerificationState::failed ? io::LogLevel::error : io::LogLevel::info,
          "{} {} {}: {}, {} read, {}{}{}",
          task.begun_by == VerificationOrigin::scrub ? "scrub" : "verification", task.id,
          to_text(task.state), io::counted(task.images.size(), "image"),
          io::bytes_text(under_way->progress->read_bytes),
          io::counted(task.damaged_backups.size(), "damaged backup"),
          task.error.empty() ? "" : ": ", task.error);
  under_way->ended.set();
}

/// Spawned in the same step in which nothing else was running.
void begin(Core& core, UnderWay under_way, std::vector<Point> points) {
  Verification& task = under_way->task;
  task.started_at = core.now();
  task.id = fmt::format("{}{}-{}", kVerificationPrefix, unix_seconds(task.started_at),
                        ++core.verifications_begun);
  task.image_count = points.size();
  const ContentReaders& readers = under_way->readers;
  const uint64_t times = (readers.varve ? 1 : 0) + (readers.second && readers.processes ? 1 : 0);
  for (const Point& point : points) task.total_bytes += times * point.bytes_stored;
  if (core.verifications.size() >= kKept) core.verifications.erase(core.verifications.begin());
  core.verifications.push_back(under_way);
  core.background.spawn(run_verification(core, std::move(under_way), std::move(points)));
}

}  // namespace

io::Task<Verification> begin_verification(Core& core, NewVerification request) {
  if (core.shutting_down) throw refusals::shutting_down();
  std::vector<Point> points = points_of(*core.catalogue, request);
  co_await end_scrub(core.parts.home, core.verifications);
  if (core.shutting_down) throw refusals::shutting_down();
  if (const UnderWay other = running_verification(core.verifications)) {
    throw refusals::verification_is_running(other->task.id);
  }
  const auto under_way = std::make_shared<VerificationUnderWay>(core.parts.home.executor);
  Verification& task = under_way->task;
  task.backup_id = request.backup_id;
  task.vm_name = request.vm_name;
  if (request.skip_days > 0) {
    const Time since = core.now() - std::chrono::seconds(request.skip_days * kSecondsPerDay);
    task.skipped_count = std::erase_if(
        points, [&](const Point& point) { return is_proven(*core.catalogue, point, since); });
  }
  under_way->readers = ContentReaders{.varve = request.by_varve,
                                      .second = request.by_libqcow,
                                      .processes = core.parts.second_reader,
                                      .patience = core.options.second_reader_patience};
  under_way->progress->bytes_per_second = request.bytes_per_second;
  begin(core, under_way, std::move(points));
  co_return seen(*under_way);
}

UnderWay begin_scrub(Core& core, std::vector<Point> points) {
  const auto under_way = std::make_shared<VerificationUnderWay>(core.parts.home.executor);
  under_way->task.begun_by = VerificationOrigin::scrub;
  under_way->progress->bytes_per_second = core.options.scrub_bytes_per_second;
  begin(core, under_way, std::move(points));
  return under_way;
}

UnderWay running_verification(const Verifications& known) {
  const auto is_running = [](const UnderWay& one) {
    return one->task.state == VerificationState::running;
  };
  const auto found = std::ranges::find_if(known, is_running);
  return found == known.end() ? nullptr : *found;
}

std::vector<Verification> list_verifications(const Verifications& known) {
  std::vector<Verification> list;
  for (auto one = known.rbegin(); one != known.rend(); ++one) {
    list.push_back(seen(**one));
  }
  return list;
}

Verification find_verification(const Verifications& known, const std::string& id) {
  return seen(*require_known(known, id));
}

io::Task<Verification> cancel_verification(Core& core, std::string id) {
  const UnderWay under_way = require_known(core.verifications, id);
  co_await end_verification(core.parts.home, under_way);
  co_return seen(*under_way);
}

}  // namespace engine
