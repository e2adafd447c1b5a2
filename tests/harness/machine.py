# SPDX-License-Identifier: Apache-2.0
"""A small virtual machine: Debian's kernel and busybox, a root file system in a raw disk, QEMU."""

import functools
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from harness import scratch

MODULES = ("virtio/virtio_ring.ko", "virtio/virtio.ko", "virtio/virtio_pci_legacy_dev.ko",
           "virtio/virtio_pci_modern_dev.ko", "virtio/virtio_pci.ko", "block/virtio_blk.ko")  # fmt: skip
TRIAL_SECONDS = 10
PROMPT = "witness: "  # what the machine says of itself on its console, once it is up

# The first process: loads the disk's driver and goes over to the root file system on it.
INITRAMFS_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in /modules/*; do /bin/busybox insmod $module; done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox poweroff -f
exec /bin/busybox switch_root /root /sbin/init
"""

# The first process of the disk: checks every file against the sums that were made with it, says what it is, and
# counts until it is told to end.
DISK_INIT = """#!/bin/busybox sh
export PATH=/bin
mount -t proc none /proc
cd /data && result=$(sha256sum -c /etc/sums >/dev/null 2>&1 && echo intact || echo DAMAGED)
touch /var/booted && sync
echo "witness: increment $(cat /etc/increment), $(ls /data | wc -l) files $result"
grep -q stay /proc/cmdline || poweroff -f
count=0
while :; do count=$((count + 1)); echo $count > /var/count; sync; usleep 20000; done
"""


def why_not():
    """Why no machine can be run here; None when it can."""
    for program in ("qemu-system-x86_64", "/bin/busybox", "dpkg-deb", "apt-get", "debugfs", "mke2fs"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


class Kernel:
    """Debian's cloud kernel, taken out of its package and not installed, and an initramfs for it."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir()
        package = self.newest_package()
        subprocess.run(["apt-get", "-q", "download", package], cwd=self.directory, check=True, capture_output=True)
        [archive] = self.directory.glob("linux-image-*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, self.directory / "tree"], check=True)
        [self.image] = (self.directory / "tree" / "boot").glob("vmlinuz-*")
        self.initramfs = self.make_initramfs("initramfs", INITRAMFS_INIT)

    @functools.cached_property
    def accelerator(self):
        return "kvm" if self.runs_under_kvm() else "tcg"

    def runs_under_kvm(self):
        """Whether a guest says something there: /dev/kvm of a nested machine may be there and lead nowhere."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return False
        console = self.directory / "trial.log"
        command = [*self.qemu("kvm", console), "-append", "console=ttyS0 panic=-1"]
        trial = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + TRIAL_SECONDS
            while time.monotonic() < end and trial.poll() is None:
                if console.exists() and "Linux version" in console.read_text(errors="replace"):
                    return True
                time.sleep(0.05)
            return False
        finally:
            scratch.end_process(trial)

    def qemu(self, accelerator, console):
        return ["qemu-system-x86_64", "-machine", f"q35,accel={accelerator}", "-m", "256", "-nodefaults",
                "-display", "none", "-no-reboot", "-serial", f"file:{console}", "-kernel", self.image,
                "-initrd", self.initramfs]  # fmt: skip

    @staticmethod
    def newest_package():
        depends = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True)
        return next(line.split()[1] for line in depends.stdout.splitlines() if "Depends:" in line)

    def make_initramfs(self, name, init, modules=MODULES, files=()):
        """`files` of this machine have the same names in there."""
        root = self.directory / name
        for folder in ("dev", "root", "modules"):
            (root / folder).mkdir(parents=True)
        for file in ("/bin/busybox", *files):
            inside = root / Path(file).relative_to("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, inside)
        [drivers] = (self.directory / "tree" / "lib" / "modules").glob("*/kernel/drivers")
        for number, module in enumerate(modules):
            shutil.copy(drivers / module, root / "modules" / f"{number}-{Path(module).name}")
        (root / "init").write_text(init)
        (root / "init").chmod(0o755)
        made = self.directory / f"{name}.cpio"
        with open(made, "wb") as archive:
            names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
            subprocess.run(["/bin/busybox", "cpio", "-o", "-H", "newc"], cwd=root, input=names, stdout=archive,
                           stderr=subprocess.DEVNULL, check=True)  # fmt: skip
        return made


def make_disk(path, size, directory):
    """An ext4 file system with busybox and the init above, nothing in /data yet."""
    root = Path(directory) / "rootfs"
    for name in ("bin", "sbin", "etc", "var", "proc", "dev", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for name in ("sh", "mount", "cat", "ls", "wc", "touch", "sync", "grep", "poweroff", "usleep", "sha256sum", "echo"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "sbin" / "init").write_text(DISK_INIT)
    (root / "sbin" / "init").chmod(0o755)
    (root / "etc" / "sums").write_text("")
    (root / "etc" / "increment").write_text("0\n")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, path, f"{size >> 10}k"], check=True, capture_output=True)


def put_files(path, files, directory):
    """Writes {name on the disk: bytes} into a file system that is not mounted."""
    commands = Path(directory) / "debugfs-commands"
    lines = []
    for number, (name, content) in enumerate(files.items()):
        source = Path(directory) / f"debugfs-{number}"
        source.write_bytes(content)
        lines += [f"rm {name}", f"write {source} {name}"]
    commands.write_text("\n".join(lines) + "\n")
    subprocess.run(["debugfs", "-w", "-f", commands, path], check=True, capture_output=True)
    checked = subprocess.run(["e2fsck", "-fn", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


class Machine:
    """A running QEMU whose disk is an NBD export; its monitor speaks QMP."""

    def __init__(self, kernel, uri, directory, stay=False):
        self.monitor = Path(directory) / "qmp.sock"
        self.monitor.unlink(missing_ok=True)
        self.console = Path(directory) / "console.log"
        self.console.unlink(missing_ok=True)
        command = [*kernel.qemu(kernel.accelerator, self.console),
                   "-append", f"console=ttyS0 quiet panic=-1 {'stay' if stay else ''}",
                   "-blockdev", json.dumps({"driver": "raw", "node-name": "disk", "file": blockdev_of(uri)}),
                   "-device", "virtio-blk-pci,drive=disk,id=vda",
                   "-qmp", f"unix:{self.monitor},server=on,wait=off"]  # fmt: skip
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def wait_for_prompt(self, seconds=120):
        """The line in which the machine says what it is."""
        def said():
            if self.process.poll() is not None and PROMPT not in self.said():
                raise AssertionError(f"QEMU ended: {self.process.stderr.read()}\n{self.said()}")
            lines = [line for line in self.said().splitlines(keepends=True) if line.startswith(PROMPT)]
            return lines[0].strip() if lines and lines[0].endswith("\n") else None
        return scratch.wait_until(said, seconds, "the machine's prompt")

    def said(self):
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def ask(self, *commands):
        """Answers of QMP commands, (name, arguments) each."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(30)
            line.connect(str(self.monitor))
            words = line.makefile("rw")
            json.loads(words.readline())
            answers = []
            for name, arguments in (("qmp_capabilities", {}), *commands):
                words.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
                words.flush()
                while "event" in (answer := json.loads(words.readline())):
                    pass
                assert "return" in answer, answer
                answers.append(answer["return"])
            return answers[1:]

    def wait_until_off(self, seconds=60):
        self.process.wait(seconds)

    def close(self):
        scratch.end_process(self.process)


def blockdev_of(uri):
    """What -blockdev wants to know of an nbd+unix URI or a nbd one."""
    parts = urlsplit(uri)
    if parts.scheme == "nbd+unix":
        server = {"type": "unix", "path": parse_qs(parts.query)["socket"][0]}
    else:
        server = {"type": "inet", "host": parts.hostname, "port": str(parts.port)}
    return {"driver": "nbd", "server": server, "export": unquote(parts.path[1:]), "reconnect-delay": 30}
