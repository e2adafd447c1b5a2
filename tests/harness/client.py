#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The existing VMware backup client, as far as varve can see it (docs/jobs.md, "The client").

Runs as a process of its own, so that a test can kill it and so that its end looks like the real
one: the process simply exits, nothing is closed, no FLUSH and no DISC is ever sent.

The plan is a JSON file:
  {"disks": [{"key": 2000, "source": "…", "change_id": "<uuid>/2", "bases": {"<uuid>/1": "…"}}]}
`bases` maps a change id to the raw file of that time, or to a list of [offset, length]: what the
change tracking of VMware knows.  An answer of varve that is not among them breaks the copy.
"""

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.sources import changed_areas, worker_range  # noqa: E402

CHUNK_BYTES = 32 << 20
ZEROES = bytes(CHUNK_BYTES)
MERGE_GAP_BYTES = 1 << 20
SAMPLED_FROM_BYTES = 4 << 20
SAMPLE_BYTES = 8192
RETRY_PAUSES = (1, 2, 4)
HANG_SECONDS_MAX = 300
TELEMETRY_SECONDS = 5


class CopyFailed(Exception):
    """The client gives up: it exits 1 and tells nobody."""


@dataclass(frozen=True)
class Target:
    """One `key:nbd://host:port/export` of nbd_targets."""

    key: int
    host: str
    port: int
    export: str

    @property
    def disk_index(self):
        """What the client believes: digits at the end of the export name, else 0."""
        found = re.search(r"disk(\d+)$", self.export)
        return int(found.group(1)) if found else 0


def parse_targets(text):
    """Splits nbd_targets the way the client does: at ',', then at the first ':'."""
    targets = []
    for part in text.split(","):
        key, address = part.split(":", 1)
        url = urllib.parse.urlsplit(address)
        targets.append(Target(int(key), url.hostname, url.port or 10809, url.path.lstrip("/")))
    return targets


def connect(target, base_allocation=False):
    """A libnbd handle with the options the client sends."""
    handle = nbd.NBD()
    handle.set_export_name(target.export)
    handle.set_tls(nbd.TLS_DISABLE)
    handle.set_request_structured_replies(True)
    if base_allocation:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_tcp(target.host, str(target.port))
    return handle


def full_copy_ranges(capacity):
    """The three workers' [start, end): the borders fall inside clusters."""
    step = worker_range(capacity)
    return [(0, step), (step, 2 * step), (2 * step, capacity)]


def chunks(start, end):
    """(offset, length) in steps of 32 MiB; the last one is what is left."""
    while start < end:
        length = min(CHUNK_BYTES, end - start)
        yield start, length
        start += length


def merged_extents(areas):
    """Joins areas over gaps of at most 1 MiB while the sum fits 32 MiB, and cuts longer ones."""
    joined = []
    for offset, length in areas:
        if joined:
            last_offset, last_length = joined[-1]
            gap = offset - (last_offset + last_length)
            if gap <= MERGE_GAP_BYTES and offset + length - last_offset <= CHUNK_BYTES:
                joined[-1] = (last_offset, offset + length - last_offset)
                continue
        joined.append((offset, length))
    return [piece for offset, length in joined for piece in chunks(offset, offset + length)]


def incremental_workers(extent_count):
    return next((n for n, limit in ((1, 10), (2, 50), (3, 200)) if extent_count < limit), 4)


class SourceReader:
    """Reads the raw disk and decides what counts as zero."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.capacity = os.fstat(self.fd).st_size
        self.of_thread = threading.local()

    def read(self, offset, length):
        """A view of this thread's buffer, good until its next read.

        One buffer for all: fresh memory for every chunk costs more than reading it.
        """
        if not hasattr(self.of_thread, "buffer"):
            self.of_thread.buffer = memoryview(bytearray(CHUNK_BYTES))
        view = self.of_thread.buffer[:length]
        done = 0
        while done < length:
            count = os.preadv(self.fd, [view[done:]], offset + done)
            if count == 0:
                raise CopyFailed(f"the source ends at {offset + done}")
            done += count
        return view

    def samples_are_zero(self, offset, length):
        """Five looks of 8 KiB: what the client takes for the whole chunk."""
        places = (0, length // 4, length // 2, length * 3 // 4, length - SAMPLE_BYTES)
        return all(ZEROES.startswith(self.read(offset + place, SAMPLE_BYTES)) for place in places)

    def is_hole(self, offset, length):
        """True when the file has no data there: zero without reading it."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA) >= offset + length
        except OSError:
            return True

    def zero_or_data(self, offset, length, sampled):
        """None for zeros, else the bytes."""
        if sampled and length >= SAMPLED_FROM_BYTES:
            return None if self.samples_are_zero(offset, length) else self.read(offset, length)
        if self.is_hole(offset, length):
            return None
        data = self.read(offset, length)
        return None if ZEROES.startswith(data) else data


class Report:
    """One JSON line per event: readable by the test even when this process is killed."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8") if path else None

    def add(self, event, **values):
        if self.file:
            self.file.write(json.dumps({"event": event, **values}) + "\n")
            self.file.flush()


class Hub:
    """The HTTP calls of one generation of the client."""

    def __init__(self, base, job_id, vm_path, legacy):
        self.base = base
        self.job_id = job_id
        self.vm_path = vm_path
        self.legacy = legacy

    def change_id(self, disk_index, key):
        """The previous change id; "" after any kind of trouble, like the client."""
        if self.legacy or not self.job_id.startswith("backup-"):
            query = {"vm_path": self.vm_path, "disk_id": f"disk-{key}"}
            path = "/api/v1/replications/changeid?"
        else:
            query = {"vm_name": self.vm_path.rsplit("/", 1)[-1], "disk_id": disk_index}
            path = "/api/v1/backups/changeid?"
        try:
            with urllib.request.urlopen(self.base + path + urllib.parse.urlencode(query), timeout=30) as answer:
                body = json.load(answer)
        except (OSError, ValueError):
            return ""
        if not all(isinstance(value, str) for value in body.values()):
            return ""
        return body.get("change_id", "")

    def telemetry(self, **values):
        body = {"job_id": self.job_id, "job_type": "backup", "disks": [], "timestamp": _now(), **values}
        try:
            self._post(f"/api/v1/telemetry/backup/{self.job_id}", body, timeout=10)
        except OSError:
            pass

    def complete(self, disk_index, change_id):
        """(status, body); the client accepts nothing but 200."""
        body = {"change_id": change_id, "bytes_transferred": 0}
        if not self.legacy:
            body["disk_id"] = disk_index
        try:
            return self._post(f"/api/v1/backups/{self.job_id}/complete", body, timeout=600)
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError as trouble:
            return 0, str(trouble)

    def _post(self, path, body, timeout):
        request = urllib.request.Request(
            self.base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class DiskCopy:
    """One handle behind one lock: a single request in flight, like the client's."""

    def __init__(self, handle, source, options, fault):
        self.handle = handle
        self.source = source
        self.sampled = options.sampled
        self.retry_scale = options.retry_scale
        self.fault = fault
        self.lock = threading.Lock()
        self.sent = {"written": 0, "zeroed": 0}
        self.done = 0
        self.errors = []

    def copy_chunk(self, offset, length, sampled):
        data = self.source.zero_or_data(offset, length, sampled)
        self._retrying(lambda: self._send(offset, length, data))
        self.done += length

    def _send(self, offset, length, data):
        with self.lock:
            self.fault.before_request(self.handle, offset, length)
            if data is None:
                try:
                    self.handle.zero(length, offset)
                    self.sent["zeroed"] += length
                    return
                except nbd.Error:
                    data = ZEROES[:length]
            self.handle.pwrite(data, offset)
            self.sent["written"] += length

    def _retrying(self, send):
        """Three more tries on the same handle; a dead connection is never reopened."""
        for pause in (*RETRY_PAUSES, None):
            try:
                return send()
            except nbd.Error as error:
                if pause is None:
                    raise CopyFailed(str(error)) from error
                time.sleep(pause * self.retry_scale)

    def full(self):
        workers = [
            threading.Thread(target=self._full_worker, args=area, daemon=True)
            for area in full_copy_ranges(self.source.capacity)
        ]
        _run_all(workers)
        if self.errors:
            raise CopyFailed(self.errors[0])

    def _full_worker(self, start, end):
        try:
            for offset, length in chunks(start, end):
                self.copy_chunk(offset, length, self.sampled)
        except CopyFailed as error:
            self.errors.append(str(error))

    def incremental(self, areas):
        pieces = merged_extents(areas)
        count = incremental_workers(len(pieces))
        workers = [
            threading.Thread(target=self._delta_worker, args=(pieces[i::count], count), daemon=True)
            for i in range(count)
        ]
        _run_all(workers)
        if self.errors:
            raise CopyFailed(self.errors[0])

    def _delta_worker(self, pieces, worker_count):
        for offset, length in pieces:
            try:
                self.copy_chunk(offset, length, sampled=False)
            except CopyFailed as error:
                self.errors.append(str(error))
                if len(self.errors) > worker_count:
                    time.sleep(HANG_SECONDS_MAX)  # its error channel is full: blocked for ever


def _run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Fault:
    """Where this run goes wrong on purpose: `POINT` or `POINT:NUMBER`.

    bytes:N            SIGKILL before the request that would pass N bytes (over all disks)
    mid-request:N      as bytes:N, but with that request half sent
    hang:N             as bytes:N, but the process lives on, silent on NBD, with telemetry
    before-complete:K  SIGKILL before the K-th `complete` of the run, counted from 0
    after-complete:K   SIGKILL right after its answer
    """

    def __init__(self, text):
        self.point, _, number = (text or "none").partition(":")
        self.number = int(number or 0)
        self.bytes = 0

    def before_request(self, handle, offset, length):
        if self.point in ("bytes", "mid-request", "hang") and self.bytes + length > self.number:
            self._strike(handle, offset, length)
        self.bytes += length

    def _strike(self, handle, offset, length):
        if self.point == "hang":
            time.sleep(HANG_SECONDS_MAX)
        if self.point == "mid-request":
            # More than the socket takes at once: libnbd sends a part, and then we are gone.
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"\xa5" * length)), offset)
        _die()

    def at_complete(self, point, count):
        if self.point == point and self.number == count:
            _die()


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


class Telemetry:
    """`running` every few seconds, also while nothing moves on NBD."""

    def __init__(self, hub, copy, seconds):
        self.hub, self.copy, self.seconds = hub, copy, seconds
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join()

    def _loop(self):
        while not self.stop.wait(self.seconds):
            self.hub.telemetry(status="running", current_phase="transferring", **progress(self.copy))


def progress(copy):
    total = copy.source.capacity
    return {
        "bytes_transferred": copy.done,
        "total_bytes": total,
        "progress_percent": min(100.0, copy.done * 100.0 / total),
        "transfer_speed_bps": 250_000_000,
    }


class BackupRun:
    """The whole life of one client process."""

    def __init__(self, options):
        self.options = options
        self.hub = Hub(options.api, options.job_id, options.vm_path, options.legacy)
        self.targets = {target.key: target for target in parse_targets(options.targets)}
        self.report = Report(options.report)
        self.fault = Fault(options.fault)
        self.leaked = []  # handles of incrementals stay open until the process ends
        self.completes = 0

    def run(self):
        plan = json.loads(Path(self.options.plan).read_text(encoding="utf-8"))
        for disk in sorted(plan["disks"], key=lambda entry: entry["key"]):
            if disk["key"] not in self.targets:
                raise CopyFailed(f"no NBD target found for VMware disk key {disk['key']}")
            self._disk(disk, self.targets[disk["key"]])

    def _disk(self, disk, target):
        source = SourceReader(disk["source"])
        incremental = self._wants_incremental(disk)
        idle = connect(target)
        areas = self._areas(disk, target) if incremental else None
        if areas is None or areas:
            self._copy(disk, target, source, areas)
        self._complete(disk, target)
        if incremental:
            self.leaked.append(idle)  # else the handle dies here: its socket closes without DISC

    def _wants_incremental(self, disk):
        """GETs 1 and 2, both before any connection and both with disk index 0."""
        first = self._ask(disk, 1, 0)
        if not first:
            return False
        second = self._ask(disk, 2, 0)
        return second.split("/")[0] == disk["change_id"].split("/")[0]

    def _ask(self, disk, number, disk_index):
        answer = self.hub.change_id(disk_index, disk["key"])
        self.report.add("changeid", key=disk["key"], get=number, answer=answer)
        return answer

    def _areas(self, disk, target):
        """GET 3 is the base that VMware is asked for; an unknown one ends the copy."""
        base = self._ask(disk, 3, target.disk_index)
        if base not in disk.get("bases", {}):
            raise CopyFailed(f"VMware does not know the change id {base!r} for disk {disk['key']}")
        known = disk["bases"][base]
        return known if isinstance(known, list) else changed_areas(known, disk["source"])

    def _copy(self, disk, target, source, areas):
        handle = connect(target, base_allocation=areas is None)
        copy = DiskCopy(handle, source, self.options, self.fault)
        self.report.add("copy", key=disk["key"], mode="full" if areas is None else "incremental")
        with self._telemetry(copy):
            copy.full() if areas is None else copy.incremental(areas)
        self.report.add("copied", key=disk["key"], **copy.sent)
        if not self.options.legacy:
            self.hub.telemetry(
                status="completed", current_phase="completed", **{**progress(copy), "progress_percent": 100}
            )

    def _telemetry(self, copy):
        # Client 1.0.1 has no telemetry: an interval longer than any run is the same as none.
        seconds = HANG_SECONDS_MAX * 10 if self.options.legacy else self.options.telemetry_seconds
        return Telemetry(self.hub, copy, seconds)

    def _complete(self, disk, target):
        self.fault.at_complete("before-complete", self.completes)
        status, body = self.hub.complete(target.disk_index, disk["change_id"])
        self.fault.at_complete("after-complete", self.completes)
        self.completes += 1
        self.report.add("complete", key=disk["key"], status=status, body=body)
        if status != 200:
            raise CopyFailed(f"complete: {status} {body}")


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job-id", default=os.environ.get("MIGRATEKIT_JOB_ID", ""))
    parser.add_argument("--targets", required=True)
    parser.add_argument("--vm-path", required=True)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--api", default=os.environ.get("SHA_API_URL", "http://localhost:8082"))
    parser.add_argument("--legacy", action="store_true", help="client 1.0.1")
    parser.add_argument("--sampled", action="store_true", help="zero detection by samples")
    parser.add_argument("--fault", help=Fault.__doc__)
    parser.add_argument("--telemetry-seconds", type=float, default=TELEMETRY_SECONDS)
    parser.add_argument("--retry-scale", type=float, default=1.0, help="factor on the retry pauses")
    parser.add_argument("--report", help="file for one JSON line per event")
    return parser.parse_args(argv)


def main():
    options = arguments()
    run = BackupRun(options)
    try:
        run.run()
        status = 0
    except (CopyFailed, nbd.Error) as failure:
        print(failure, file=sys.stderr)
        run.report.add("failed", reason=str(failure))
        status = 1
    run.report.add("exit", status=status)
    os._exit(status)  # no handle is closed in good order, by design


if __name__ == "__main__":
    main()
