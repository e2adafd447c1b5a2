# SPDX-License-Identifier: Apache-2.0
"""A catalogue with more VMs and points than a test could back up: the rows, written by SQL, while varve is down."""

import sqlite3

DAY = 86_400
MIB = 1 << 20
# The tables, and of each a column that has the name of the VM in it.
NAMED = {"vm": "vm_name", "vm_disk": "context_id", "backup_context": "context_id", "job": "vm_name",
         "job_disk": "job_id", "chain": "context_id", "point": "chain_id"}  # fmt: skip
FIRST = "vm-0000"  # part of every name in its rows, so that the others' are made of them


def add_vms(path, vm_count, point_count, newest, repository_id="1", interval=DAY):
    """`vm_count` VMs of one disk with a point per interval, the newest one completed at the time `newest`."""
    with sqlite3.connect(path) as catalogue:
        for table, rows in rows_of_first(point_count, newest, repository_id, interval).items():
            for row in rows:
                insert(catalogue, table, row)
        for table in NAMED:
            copy(catalogue, table, vm_count)


def rows_of_first(point_count, newest, repository_id, interval):
    context, begun = f"ctx-{FIRST}", newest - point_count * interval
    chain = f"chain-{context}-disk0-{repository_id}-g1"
    where = {"context_id": context, "repository_id": repository_id, "vm_name": FIRST, "vm_path": f"/DC1/vm/{FIRST}",
             "vcenter_host": "vc1"}  # fmt: skip
    rows = {table: [] for table in NAMED}
    previous = parent_job = ""
    for position in range(point_count):
        end = newest - (point_count - 1 - position) * interval
        job, image, kind = f"backup-{FIRST}-{end}", f"{FIRST}-disk0-{end}", "incremental" if previous else "full"
        stored = (100 if previous else 4096) * MIB + position * 65536
        times = {"created_at": end - 60, "completed_at": end}
        rows["job"].append({**where, "id": job, "type": kind, "state": "completed", "tags": "{}", "warnings": "[]",
                            "client": "external", "started_at": end - 60, "decided_at": end, **times})  # fmt: skip
        rows["job_disk"].append({
            "job_id": job, "disk_key": 2000, "capacity_bytes": 64 << 30, "state": "completed", "type": kind,
            "image_id": image, "image_path": f"/nowhere/{image}.qcow2", "parent_image_id": previous,
            "parent_job_id": parent_job, "export_name": f"{image}-export", "change_id": f"u/{position}",
            "bytes_received": stored, "bytes_stored": stored, "allocated_bytes": stored, "generation": 1,
            "position": position, **times,
        })  # fmt: skip
        rows["point"].append(
            {"image_id": image, "chain_id": chain, "position": position, "parent_image_id": previous or None}
        )
        previous, parent_job = image, job
    times = {"created_at": begun, "updated_at": begun}
    rows["vm"] = [{**times, "context_id": context, "vm_name": FIRST, "safe_name": FIRST, "vm_path": f"/DC1/vm/{FIRST}",
                   "inventory_name": FIRST, "vcenter_host": "vc1", "credentials_kind": "none"}]  # fmt: skip
    rows["vm_disk"] = [{**times, "context_id": context, "disk_key": 2000, "capacity_bytes": 64 << 30}]
    rows["chain"] = [{**times, "id": chain, "context_id": context, "repository_id": repository_id, "generation": 1}]
    rows["backup_context"] = [{**times, "id": f"bc-{FIRST}", "context_id": context, "repository_id": repository_id,
                               "total_backups_run": point_count, "successful_backups": point_count,
                               "last_backup_id": parent_job, "last_backup_type": kind,
                               "last_backup_at": newest}]  # fmt: skip
    return rows


def insert(catalogue, table, row):
    """`row`, and 0 or '' for every other column that must have a value and has no default."""
    row = dict(row)
    for _, name, kind, not_null, default, key in catalogue.execute(f"PRAGMA table_info({table})"):
        if name not in row and not_null and default is None and not (key and kind == "INTEGER"):
            row[name] = 0 if kind == "INTEGER" else ""
    marks = ", ".join("?" * len(row))
    catalogue.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def copy(catalogue, table, vm_count):
    """The rows of the first VM once more for each of the others, under their names."""
    columns = [(name, kind) for _, name, kind, _, _, key in catalogue.execute(f"PRAGMA table_info({table})")
               if not (key and kind == "INTEGER")]  # fmt: skip
    values = [f"replace(t.{name}, '{FIRST}', printf('vm-%04d', n.i))" if kind == "TEXT" else f"t.{name}"
              for name, kind in columns]  # fmt: skip
    catalogue.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {vm_count}) "
        f"INSERT INTO {table} ({', '.join(name for name, _ in columns)}) SELECT {', '.join(values)} FROM n, {table} t "
        f"WHERE t.{NAMED[table]} LIKE '%{FIRST}%' ORDER BY n.i, t.rowid")  # fmt: skip
