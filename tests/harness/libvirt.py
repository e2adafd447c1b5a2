# SPDX-License-Identifier: Apache-2.0
"""A libvirt of the test's own: a session daemon of an unprivileged user, and domains that stand still."""

import contextlib
import os
import shutil
import subprocess

from harness import scratch

SECONDS = 60
NOBODY = 65534

DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}{devices}</devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{path}'/>
<target dev='{target}' bus='virtio'/></disk>"""


def why_not():
    """Why no libvirt can be run here; None when it can."""
    for program in ("libvirtd", "virsh", "qemu-system-x86_64", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


class Session:
    """qemu:///session of a user who is not root: root's is the system's. Files that domains use are that user's."""

    def __init__(self, directory):
        self.directory = directory
        for name in ("run", "config", "cache", "disks"):
            (directory / name).mkdir(parents=True)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory / "run"),
                            "XDG_CONFIG_HOME": str(directory / "config"), "XDG_CACHE_HOME": str(directory / "cache")}  # fmt: skip
        self.is_root = os.geteuid() == 0
        self.own(directory)
        with open(directory / "libvirtd.log", "wb") as log:
            self.daemon = subprocess.Popen(self.command("libvirtd"), env=self.environment, cwd=directory, stdout=log, stderr=log)
        scratch.wait_until((directory / "run" / "libvirt" / "libvirt-sock").exists, SECONDS, "libvirtd listens")

    def own(self, directory):
        if self.is_root:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, NOBODY, NOBODY)

    def command(self, *words):
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if self.is_root else []
        return [*user, *map(str, words)]

    def run(self, *words, status=0, seconds=SECONDS):
        done = subprocess.run(self.command(*words), env=self.environment, cwd=self.directory, capture_output=True, text=True,
                              timeout=seconds, check=False)  # fmt: skip
        assert done.returncode == status, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout, done.stderr

    def virsh(self, *words, status=0):
        return self.run("virsh", "-q", "-c", "qemu:///session", *words, status=status)[0]

    def checkpoints(self, domain):
        return self.virsh("checkpoint-list", domain, "--name").split()

    def define(self, name, disks, transient=False, memory_mib=32, boot="", devices=""):
        """`disks`: target name -> (path, format); `boot` and `devices` are XML."""
        text = "".join(DISK.format(target=target, path=path, format=kind) for target, (path, kind) in disks.items())
        xml = self.directory / f"{name}.xml"
        xml.write_text(DOMAIN.format(name=name, disks=text, memory_mib=memory_mib, boot=boot, devices=devices))
        self.own(self.directory)
        if transient:
            self.virsh("create", xml, "--paused")
        else:
            self.virsh("define", xml)

    def start(self, name):
        """Its processor stands still: only write() changes its disks."""
        self.virsh("start", name, "--paused")

    def write(self, name, disk_number, commands):
        """qemu-io commands, as if the guest had written to its disk."""
        device = f"/machine/peripheral/virtio-disk{disk_number}/virtio-backend"
        for command in commands:
            answer = self.virsh("qemu-monitor-command", name, "--hmp", f'qemu-io -d {device} "{command}"')
            assert "rror" not in answer and "ailed" not in answer, f"{command}: {answer}"

    def qemu_pid(self, name):
        [file] = (self.directory / "run").rglob(f"{name}.pid")
        return int(file.read_text())

    def close(self):
        for name in self.virsh("list", "--name").split():
            with contextlib.suppress(AssertionError):
                self.virsh("destroy", name)
        scratch.end_process(self.daemon)
