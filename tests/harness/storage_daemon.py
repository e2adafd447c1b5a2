# SPDX-License-Identifier: Apache-2.0
"""qemu-storage-daemon: QEMU's own block jobs, as a running virtual machine has them."""

import json
import socket
import subprocess

from harness import scratch

START_SECONDS = 20


class StorageDaemon:
    """`nodes`: --blockdev objects, in their order."""

    def __init__(self, directory, nodes):
        self.socket_path = directory / "qmp.sock"
        self.log_path = directory / "storage-daemon.log"
        blockdevs = [word for node in nodes for word in ("--blockdev", json.dumps(node))]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["qemu-storage-daemon", *blockdevs,
                 "--chardev", f"socket,id=qmp,path={self.socket_path},server=on,wait=off",
                 "--monitor", "chardev=qmp"],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.connection = scratch.wait_until(self._connected, START_SECONDS, "qemu-storage-daemon answers")
        self.lines = self.connection.makefile("rw")
        self.lines.readline()  # its greeting
        self.command("qmp_capabilities")

    def _connected(self):
        assert self.process.poll() is None, self.log_path.read_text()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.connect(str(self.socket_path))
        except OSError:
            made.close()
            return None
        return made

    def command(self, name, /, **arguments):
        """What QMP returns; its error fails the test."""
        self.lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline())
            if "event" not in answer:
                break
        assert "return" in answer, f"{name}: {answer}"
        return answer["return"]

    def job(self, name, job_id, seconds=120, **arguments):
        """Runs a block job to its end, which must be a good one."""
        self.command(name, **{"job-id": job_id, "auto-dismiss": False, **arguments})

        def concluded():
            [job] = [job for job in self.command("query-jobs") if job["id"] == job_id]
            return job if job["status"] == "concluded" else None

        ended = scratch.wait_until(concluded, seconds, f"{name} ends")
        assert "error" not in ended, ended
        self.command("job-dismiss", id=job_id)

    def close(self):
        self.lines.close()
        self.connection.close()
        scratch.end_process(self.process, 30)
