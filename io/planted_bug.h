// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Bugs that the crash simulator must find, to prove that it sees. Only tests/crash is built with
/// VARVE_PLANTED_BUGS; everywhere else both macros leave nothing behind.
///
///   UNLESS_PLANTED(name) statement;      the bug leaves the statement out
///   PLANTED_BUG(name, statement);        the bug adds one
#ifdef VARVE_PLANTED_BUGS

#include <cstdint>
#include <set>

#include "io/file.h"

namespace io {

enum class PlantedBug : uint8_t {
  none,
  flush_without_sync,
  flush_without_l2,
  l2_before_refcount,
  table_entry_before_block,
  freed_cluster_reused,
  zero_before_rewrite,
  flush_while_queued,
  sync_trusted_after_failure,
  flush_of_own_connection,
  header_before_table,
  directory_not_synced,
  completed_before_durable,
  l1_before_l2,
  table_evicted_while_committed,
  lock_on_other_description,
  direct_beside_buffered,
  noreplace_without_fallback,
  free_without_table_check,
  seal_bit_decides,
  half_decoded_write,
  decided_job_discarded,
  derived_file_fails_publish,
  delete_without_identity,
  promotion_name_unsynced,
  restore_row_first,
  manifest_name_unsynced,
  elision_of_own_cluster,
  arrival_before_flush,
  elision_unconfirmed,
  manifest_unsynced,
  manifest_keeps_old_sum,
  proof_in_place,
  proof_without_checksum,
  damage_overlooked,
  deletion_row_first,
};

/// The one that is switched on.
inline PlantedBug planted_bug = PlantedBug::none;

/// For flush_of_own_connection: connections with something to flush.
inline std::set<const void*> planted_writers;

/// For sync_trusted_after_failure: what fails is tried once more, and believed.
inline Task<void> sync_believing_the_second(File& file) {
  bool failed = false;
  try {
    co_await file.sync_data();
  } catch (const std::exception&) {
    failed = true;
  }
  if (failed) co_await file.sync_data();
}

/// For freed_cluster_reused: a host cluster that is kept for another guest cluster, or that of the
/// header. `Retained` is qcow::RetainedClusters.
template <class Retained>
auto steal_retained(Retained& retained) {
  for (const auto& run : retained.take_shortest(1)) return run.host;
  return decltype(Retained::Run::host){};
}

}  // namespace io

#define UNLESS_PLANTED(name) if (io::planted_bug != io::PlantedBug::name)
#define PLANTED_BUG(name, ...)                   \
  if (io::planted_bug == io::PlantedBug::name) { \
    __VA_ARGS__;                                 \
  }

#else

#define UNLESS_PLANTED(name)
#define PLANTED_BUG(name, ...)

#endif
