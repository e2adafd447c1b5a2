// SPDX-License-Identifier: Apache-2.0
#include "engine/catalogue/samples.h"

#include <algorithm>

#include "engine/catalogue/tables.h"

namespace engine {
namespace {

struct SampleRow {
  std::string job_id;
  ProgressSample sample;
};

constexpr auto kSampleTable = columns<SampleRow>(col("job_id", &SampleRow::job_id),
                                                 nested(&SampleRow::sample, kSampleColumns));

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
    insert_row(db_, "sample", kSampleTable, {job_id, sample});
  }
  tx.commit();
}

SampleHistory SampleCatalogue::history(std::string_view job_id, uint64_t limit) {
  static constexpr auto kTotals =
      columns<SampleHistory>(col("samples_recorded", &SampleHistory::recorded),
                             derived("samples_halved > 0", &SampleHistory::halved),
                             col("speed_peak_bps", &SampleHistory::peak_bps),
                             col("speed_min_bps", &SampleHistory::minimum_bps),
                             derived("CAST(speed_sum_bps / max(samples_recorded, 1) AS INTEGER)",
                                     &SampleHistory::average_bps));
  auto history = select_row(db_, kTotals, "FROM job WHERE id = ?", job_id);
  if (!history) return {};
  history->samples =
      select_rows(db_, kSampleColumns, "FROM sample WHERE job_id = ? ORDER BY id DESC LIMIT ?",
                  job_id, limit == 0 ? kSamplesMax : std::min(limit, kSamplesMax));
  std::reverse(history->samples.begin(), history->samples.end());
  return std::move(*history);
}

}  // namespace engine
