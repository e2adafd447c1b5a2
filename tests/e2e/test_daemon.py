#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The daemon itself: its catalogue, its exclusive state, its exit."""

import sqlite3
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import run  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import Daemon, binary  # noqa: E402

COLUMNS = {  # of docs/catalogue.md
    "backup_jobs": "id vm_backup_context_id vm_context_id vm_name disk_id repository_id policy_id backup_type status"
    " repository_path parent_backup_id change_id bytes_transferred total_bytes compression_enabled error_message"
    " created_at started_at completed_at current_phase transfer_speed_bps eta_seconds progress_percent"
    " last_telemetry_at state tags warnings performance_metrics",
    "backup_disks": "id vm_backup_context_id backup_job_id disk_index vmware_disk_key size_gb unit_number"
    " disk_change_id qcow2_path bytes_transferred status error_message created_at completed_at progress_percent"
    " image_id parent_image_id backup_type capacity_bytes handed_out_change_id bytes_zeroed bytes_elided"
    " bytes_stored chain_id chain_position export_name judged_bytes incompressible_bytes zero_data_bytes",
    "vm_backup_contexts": "context_id vm_name vmware_vm_id vm_path vcenter_host datacenter repository_id"
    " total_backups_run successful_backups failed_backups last_backup_id last_backup_type last_backup_at"
    " created_at updated_at",
    "vm_replication_contexts": "context_id vm_name vmware_vm_id vm_path vcenter_host datacenter credential_id power_state"
    " expected_interval_seconds",
    "vm_disks": "vm_context_id disk_id vmdk_path size_gb capacity_bytes unit_number datastore label disk_change_id"
    " disk_index removed",
    "backup_chains": "id chain_id vm_context_id vm_name disk_id repository_id full_backup_id latest_backup_id"
    " total_backups total_size_bytes created_at updated_at",
    "backup_repositories": "id name repository_type enabled config is_immutable min_retention_days total_size_bytes"
    " used_size_bytes available_size_bytes last_check_at created_at updated_at",
}


class Catalogue(HubCase):
    def test_the_operators_query_works_in_plain_sqlite(self):
        """A27 with the views' columns"""
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"])
        self.quick_backup("vm", ["u/2"], "incremental")
        with sqlite3.connect(f"file:{self.hub.catalogue}?mode=ro", uri=True) as db:
            rows = db.execute(
                "SELECT id, backup_type, change_id FROM backup_jobs ORDER BY created_at DESC LIMIT 3"
            ).fetchall()
            self.assertEqual({row[1:] for row in rows}, {("full", "u/1"), ("incremental", "u/2")})
            for view, columns in COLUMNS.items():
                db.execute(f"SELECT {', '.join(columns.split())} FROM {view} LIMIT 1")
            self.assertGreater(db.execute("PRAGMA user_version").fetchone()[0], 0)


class Defaults(HubCase):
    def test_a_second_serve_on_the_same_state_is_refused_with_the_others_pid(self):
        """A13 same catalogue or same repository"""
        for same in ("catalogue", "repository"):
            with self.subTest(same=same):
                options = {same: getattr(self.hub, same)}
                second = Daemon(self.dir / f"second-{same}", **options)
                self.addCleanup(second.close)
                second.launch()
                self.assertEqual(second.process.wait(20), 1)
                self.assertIn(str(self.hub.ready["pid"]), second.log)

    def test_wrong_usage_exits_2_and_version_exits_0(self):
        """A13 exit status"""
        bad = subprocess.run([binary(), "serve", "--no-such-option"], capture_output=True, timeout=20, check=False)
        self.assertEqual(bad.returncode, 2)
        version = subprocess.run([binary(), "--version"], capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(version.returncode, 0)
        self.assertIn("io_uring", version.stdout)

    def test_sigterm_ends_in_good_order_and_removes_nothing_published(self):
        """A15 SIGTERM"""
        self.register("vm", [MIB])
        self.quick_backup("vm", ["u/1"])
        job = self.start("vm", "incremental")
        handle = self.connect(job)
        handle.pwrite(b"x" * 4096, 0)
        self.assertEqual(self.hub.stop(), 0)
        del handle
        self.assertEqual(self.stray_files(), [])
        self.hub.restart()
        failed = self.job(job["backup_id"])
        self.assertEqual((failed["status"], failed["error_message"]), ("failed", "server shut down during backup"))
        self.assertEqual(self.chain("vm")["backup_count"], 1)


if __name__ == "__main__":
    run.main()
