// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "engine/jobs/core.h"
#include "engine/values/views.h"

/// Rows together with what only the running engine knows. Control thread.
namespace engine {

/// A job that is being deleted is not found any more. Throws backup_not_found.
Job require_backup(Catalogue& catalogue, const std::string& backup_id);

/// `job` is a row; of a running job the live counters take its place.
BackupView job_view(const ActiveJobs& jobs, Time now, Job job);

/// 0 to 99.9, whatever a client has reported: 100 is kept for what is completed.
double percent_before_the_end(double percent);

/// Throw backup_not_found.
BackupView backup_view(Core& core, const std::string& backup_id);
std::vector<BackupDiskView> backup_disk_views(Core& core, const std::string& backup_id);
BackupList backup_list(Core& core, const BackupFilter& filter);
BackupStats backup_stats_of(Catalogue& catalogue, const std::string& vm_name,
                            const std::string& repository_id);
ChainView chain_view(Core& core, const ChainQuery& query);

}  // namespace engine
