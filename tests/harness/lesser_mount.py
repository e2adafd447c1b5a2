# SPDX-License-Identifier: Apache-2.0
"""A repository on the tests' own FUSE file system (support/lesser_file_system.cc), for the cases of a HubCase."""

import os
import subprocess


class LesserMount:
    """Repository `lesser` lies on the FUSE file system, repository `1` elsewhere."""

    def mount(self, *lacks):
        program = os.environ.get("LESSER_FILE_SYSTEM")
        if not program:
            self.skipTest("built without libfuse3, or LESSER_FILE_SYSTEM is not set")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("/dev/fuse cannot be used here")
        self.files, self.path = self.dir / "files", self.dir / "lesser"
        self.files.mkdir()
        self.path.mkdir()
        done = subprocess.run([program, self.files, self.path, *lacks], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no FUSE mount here: {done.stderr}")
        self.addCleanup(subprocess.run, ["umount", self.path], check=True)
        self.addCleanup(self.hub.close)  # it holds files there
        body = {"id": "lesser", "name": "lesser", "type": "local", "enabled": True, "config": {"path": str(self.path)}}
        answer = self.hub.api("POST", "/repositories", body)
        self.assertEqual(answer.status, 201, answer)
        return answer.body

    def below(self, image):
        """The file of which the mount shows `image`."""
        return self.files / image.relative_to(self.path)

    def server_of_the_mount(self):
        """The process behind the FUSE mount."""
        found = subprocess.run(["pgrep", "-f", f"lesser.* {self.files} "], capture_output=True, text=True, check=True)
        [pid] = found.stdout.split()
        return int(pid)
