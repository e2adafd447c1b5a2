#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""varve does everything itself: no child process, with nothing on PATH."""

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import qemu, run, sources  # noqa: E402
from harness.case import MIB, HubCase  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.node import ClientStarter  # noqa: E402


class Native(HubCase):
    def traced_daemon(self, trace):
        """varve under strace, with an empty PATH (the leak check of ASan cannot run there)."""
        strace = shutil.which("strace")
        return Daemon(
            self.dir / "traced",
            node_url=self.node.url,
            environment={"PATH": "", "ASAN_OPTIONS": "detect_leaks=0"},
            prefix=[strace, "-f", "-qq", "-o", str(trace), "-e", "trace=execve,execveat,fork,vfork,clone,clone3"],
        )

    def test_a_full_and_an_incremental_start_no_process(self):
        """A9"""
        trace = self.dir / "trace"
        self.hub.close()
        self.hub = self.traced_daemon(trace)
        self.addCleanup(self.hub.close)
        self.hub.start()
        self.starter = ClientStarter(self.dir, self.hub.url)
        disks = sources.make_sources(self.dir, [32 * MIB, 16 * MIB])
        self.register("vm", [32 * MIB, 16 * MIB])
        self.client_backup("vm", disks)
        for disk in disks:
            disk.advance(9)
        self.client_backup("vm", disks, "incremental")
        self.assertEqual(self.children(), [])
        self.hub.stop()
        calls = trace.read_text()
        self.assertEqual(len(re.findall(r"\bexecve(?:at)?\(", calls)), 1, "only varve itself")
        for line in calls.splitlines():
            if re.search(r"\b(fork|vfork|clone3?)\(", line):
                self.assertIn("CLONE_THREAD", line)
        for index, disk in enumerate(disks):
            for image, point in zip(self.hub_images(index), sorted(disk.snapshots) + [disk.change_id]):
                qemu.verify(image, disk.content_at(point))

    def children(self):
        pid = self.hub.ready["pid"]
        found = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += (task / "children").read_text().split()
        return found

    def hub_images(self, index):
        found = list(self.hub.repository.glob(f"ctx-vm-*/disk-{index}/backup-*.qcow2"))
        self.assertEqual(len(found), 2)
        return sorted(found, key=lambda path: len(qemu.backing_chain(path)))


if __name__ == "__main__":
    run.main()
