// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "tests/engine/catalogue_fixture.h"

/// docs/catalogue.md, run: its queries in the sqlite3 shell, its columns against the views.
namespace engine {
namespace {

class CatalogueDoc : public CatalogueTest {
 protected:
  CatalogueDoc() {
    const Vm vm = add_vm("pgtest1");
    full_ = backup(vm, BackupType::full, 1);
    incremental_ = backup(vm, BackupType::incremental, 2);
  }

  static std::string document() {
    std::ifstream file(VARVE_SOURCE_ROOT "/docs/catalogue.md");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  /// What stands between ```sql and ```, one statement each.
  static std::vector<std::string> queries() {
    std::vector<std::string> found;
    const std::string text = document();
    static constexpr std::string_view kBegin = "```sql\n", kEnd = "```";
    for (size_t at = 0; (at = text.find(kBegin, at)) != std::string::npos;) {
      at += kBegin.size();
      found.push_back(text.substr(at, text.find(kEnd, at) - at));
    }
    return found;
  }

  struct Outcome {
    int status;
    std::string output;
  };
  /// The sqlite3 shell on the catalogue, read-only, while varve has it open.
  Outcome shell(const std::string& sql) {
    const std::string script = path() + ".sql";
    std::ofstream(script) << sql;
    const std::string command = "sqlite3 -readonly '" + path() + "' < '" + script + "' 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string output;
    std::array<char, 4096> piece;
    while (const size_t bytes = fread(piece.data(), 1, piece.size(), pipe)) {
      output.append(piece.data(), bytes);
    }
    return {pclose(pipe), output};
  }

  std::vector<std::string> columns(const std::string& view) {
    Db db(path());
    std::vector<std::string> names;
    Stmt select(db, "SELECT name FROM pragma_table_info(?)", view);
    while (select.step()) names.push_back(select.take<std::string>());
    return names;
  }

  Job full_, incremental_;
};

TEST_F(CatalogueDoc, A27TheOperatorsQueryWorksInTheShell) {
  const Outcome outcome =
      shell("SELECT id, backup_type, change_id FROM backup_jobs ORDER BY created_at DESC LIMIT 3;");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.output, incremental_.id + "|incremental|" + change_id(0, 2) + "\n" + full_.id +
                                "|full|" + change_id(0, 1) + "\n");
}

TEST_F(CatalogueDoc, A53EveryQueryOfTheDocumentRunsAndFindsSomething) {
  ASSERT_GE(queries().size(), 5u);
  for (const std::string& query : queries()) {
    const Outcome outcome = shell(query);
    EXPECT_EQ(outcome.status, 0) << query << outcome.output;
    EXPECT_FALSE(outcome.output.empty()) << query;
    EXPECT_EQ(outcome.output.find("Error"), std::string::npos) << query << outcome.output;
  }
}

struct View {
  const char* name;
  std::vector<std::string> columns;
};

/// The columns that operators' queries rely on, in docs/catalogue.md's order.
const std::vector<View> kViews = {
    {"backup_jobs",
     {"id",
      "vm_backup_context_id",
      "vm_context_id",
      "vm_name",
      "disk_id",
      "repository_id",
      "policy_id",
      "backup_type",
      "status",
      "repository_path",
      "parent_backup_id",
      "change_id",
      "bytes_transferred",
      "total_bytes",
      "compression_enabled",
      "error_message",
      "created_at",
      "started_at",
      "completed_at",
      "current_phase",
      "transfer_speed_bps",
      "eta_seconds",
      "progress_percent",
      "last_telemetry_at",
      "state",
      "tags",
      "warnings",
      "performance_metrics"}},
    {"backup_disks",
     {"id",
      "vm_backup_context_id",
      "backup_job_id",
      "disk_index",
      "vmware_disk_key",
      "size_gb",
      "unit_number",
      "disk_change_id",
      "qcow2_path",
      "bytes_transferred",
      "status",
      "error_message",
      "created_at",
      "completed_at",
      "progress_percent",
      "image_id",
      "parent_image_id",
      "backup_type",
      "capacity_bytes",
      "handed_out_change_id",
      "bytes_zeroed",
      "bytes_elided",
      "bytes_stored",
      "chain_id",
      "chain_position",
      "export_name",
      "judged_bytes",
      "incompressible_bytes",
      "zero_data_bytes"}},
    {"vm_backup_contexts",
     {"context_id", "vm_name", "vmware_vm_id", "vm_path", "vcenter_host", "datacenter",
      "repository_id", "total_backups_run", "successful_backups", "failed_backups",
      "last_backup_id", "last_backup_type", "last_backup_at", "created_at", "updated_at"}},
    {"vm_replication_contexts",
     {"context_id", "vm_name", "vmware_vm_id", "vm_path", "vcenter_host", "datacenter",
      "credential_id", "power_state", "expected_interval_seconds"}},
    {"vm_disks",
     {"vm_context_id", "disk_id", "vmdk_path", "size_gb", "capacity_bytes", "unit_number",
      "datastore", "label", "disk_change_id", "disk_index", "removed"}},
    {"backup_chains",
     {"id", "chain_id", "vm_context_id", "vm_name", "disk_id", "repository_id", "full_backup_id",
      "latest_backup_id", "total_backups", "total_size_bytes", "created_at", "updated_at"}},
    {"backup_repositories",
     {"id", "name", "repository_type", "enabled", "config", "is_immutable", "min_retention_days",
      "total_size_bytes", "used_size_bytes", "available_size_bytes", "last_check_at", "created_at",
      "updated_at"}},
};

TEST_F(CatalogueDoc, A27EveryViewHasTheColumnsOfTheContract) {
  for (const View& view : kViews) {
    const std::vector<std::string> present = columns(view.name);
    for (const std::string& column : view.columns) {
      EXPECT_NE(std::find(present.begin(), present.end(), column), present.end())
          << view.name << "." << column;
    }
  }
}

TEST_F(CatalogueDoc, EveryColumnOfEveryViewIsExplained) {
  const std::string text = document();
  for (const View& view : kViews) {
    const size_t section = text.find("### `" + std::string(view.name) + "`");
    ASSERT_NE(section, std::string::npos) << view.name;
    const std::string body = text.substr(section, text.find("\n### ", section + 1) - section);
    for (const std::string& column : columns(view.name)) {
      EXPECT_NE(body.find("`" + column + "`"), std::string::npos) << view.name << "." << column;
    }
  }
}

TEST_F(CatalogueDoc, TheViewsShowWhatTheContractSays) {
  tick();
  const Job failed = start(catalogue().vms.find("pgtest1").value(), BackupType::incremental);
  catalogue().jobs.end(failed.id, JobState::failed, "client vanished", now());
  const auto value = [&](const std::string& sql) { return shell(sql + ";").output; };
  EXPECT_EQ(value("SELECT status, file_path, parent_backup_id IS NULL, bytes_transferred, "
                  "total_bytes, created_at, completed_at, progress_percent FROM backup_jobs "
                  "WHERE id = '" +
                  full_.id + "'"),
            "completed|/multi-disk-parent|1|2001|2147483648|2025-10-08T08:56:34Z|"
            "2025-10-08T08:56:44Z|100.0\n");
  EXPECT_EQ(value("SELECT parent_backup_id FROM backup_jobs WHERE id = '" + incremental_.id + "'"),
            full_.id + "\n");
  EXPECT_EQ(value("SELECT status, state, error_message, change_id IS NULL FROM backup_jobs "
                  "WHERE id = '" +
                  failed.id + "'"),
            "failed|failed|client vanished|1\n");
  EXPECT_EQ(value("SELECT total_backups_run, successful_backups, failed_backups, last_backup_id "
                  "FROM vm_backup_contexts"),
            "3|2|1|" + incremental_.id + "\n");
  EXPECT_EQ(value("SELECT id, full_backup_id, latest_backup_id, total_backups, total_size_bytes "
                  "FROM backup_chains WHERE disk_id = 1"),
            chain_name(full_.context_id, 1, "1", 1) + "|" + full_.id + "|" + incremental_.id +
                "|2|2147483648\n");
  EXPECT_EQ(value("SELECT disk_id, size_gb, disk_change_id, removed FROM vm_disks "
                  "WHERE disk_index = 1"),
            "disk-2001|1|" + change_id(1, 2) + "|0\n");
  EXPECT_EQ(value("SELECT backup_type, chain_position, status FROM backup_disks WHERE "
                  "backup_job_id = '" +
                  incremental_.id + "' AND disk_index = 0"),
            "incremental|1|completed\n");
}

TEST_F(CatalogueDoc, PerformanceMetricsAreJson) {
  const Job job = [&] {
    tick();
    return start(catalogue().vms.find("pgtest1").value(), BackupType::full);
  }();
  catalogue().samples.add(job.id, {5, 100, 1, "transferring", SampleSource::server});
  catalogue().samples.add(job.id, {10, 200, 2, "transferring", SampleSource::server});
  EXPECT_EQ(shell("SELECT performance_metrics ->> '$.avg_speed_bps' FROM backup_jobs WHERE id = '" +
                  job.id + "';")
                .output,
            "150\n");
}

}  // namespace
}  // namespace engine
