#include "engine/catalogue/samples.h"

#include <algorithm>

namespace engine {
namespace {

/// Every second sample goes, the oldest stays.
void halve(Db& db, const std::string& job_id) {
  Stmt(db,
       "DELETE FROM sample WHERE id IN (SELECT id FROM "
       "(SELECT id, row_number() OVER (ORDER BY id) AS number FROM sample WHERE job_id = ?) "
       "WHERE number % 2 = 0)",
       job_id)
      .run();
  Stmt(db, "UPDATE job SET samples_halved = samples_halved + 1 WHERE id = ?", job_id).run();
}

}  // namespace

void SampleCatalogue::add(const std::string& job_id, const ProgressSample& sample) {
  Tx tx(db_, Durability::lazy);
  Stmt(db_,
       "UPDATE job SET speed_peak_bps = max(speed_peak_bps, ?1), "
       "speed_min_bps = CASE samples_recorded WHEN 0 THEN ?1 ELSE min(speed_min_bps, ?1) END, "
       "speed_sum_bps = speed_sum_bps + ?1, samples_recorded = samples_recorded + 1 WHERE id = ?2",
       sample.bytes_per_second, job_id)
      .run();
  Stmt kept(db_,
            "SELECT count(*), coalesce(min(seconds), 0), coalesce(max(seconds), 0), "
            "(SELECT samples_halved FROM job WHERE id = ?1) FROM sample WHERE job_id = ?1",
            job_id);
  kept.step();
  const auto count = kept.take<uint64_t>();
  const auto first = kept.take<uint64_t>();
  const auto last = kept.take<uint64_t>();
  const bool halved = kept.take<uint64_t>() > 0;
  // Once halved, a sample nearer to the last one than three quarters of the usual distance is left
  // out: else the newest part of the job would be twice as dense as the rest.
  const bool too_near =
      halved && count > 1 && last > first &&
      (sample.seconds - std::min(last, sample.seconds)) * 4 * (count - 1) < (last - first) * 3;
  if (!too_near) {
    if (count >= kSamplesMax) halve(db_, job_id);
    Stmt(db_,
         "INSERT INTO sample (job_id, seconds, bytes_per_second, percent, phase, source) "
         "VALUES (?, ?, ?, ?, ?, ?)",
         job_id, sample.seconds, sample.bytes_per_second, sample.percent, sample.phase,
         sample.source)
        .run();
  }
  tx.commit();
}

SampleHistory SampleCatalogue::history(std::string_view job_id, uint64_t limit) {
  SampleHistory history;
  Stmt totals(db_,
              "SELECT samples_recorded, samples_halved, speed_peak_bps, speed_min_bps, "
              "CAST(speed_sum_bps / max(samples_recorded, 1) AS INTEGER) FROM job WHERE id = ?",
              job_id);
  if (!totals.step()) return history;
  history.recorded = totals.take<uint64_t>();
  history.halved = totals.take<uint64_t>() > 0;
  history.peak_bps = totals.take<uint64_t>();
  history.minimum_bps = totals.take<uint64_t>();
  history.average_bps = totals.take<uint64_t>();
  Stmt select(db_,
              "SELECT seconds, bytes_per_second, percent, phase, source FROM sample "
              "WHERE job_id = ? ORDER BY id DESC LIMIT ?",
              job_id, limit == 0 ? kSamplesMax : std::min(limit, kSamplesMax));
  while (select.step()) {
    ProgressSample sample;
    sample.seconds = select.take<uint64_t>();
    sample.bytes_per_second = select.take<uint64_t>();
    sample.percent = select.take<double>();
    sample.phase = select.take<std::string>();
    sample.source = from_text<SampleSource>(select.take<std::string>()).value();
    history.samples.push_back(std::move(sample));
  }
  std::reverse(history.samples.begin(), history.samples.end());
  return history;
}

}  // namespace engine
