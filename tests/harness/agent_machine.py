# SPDX-License-Identifier: Apache-2.0
"""A libvirt domain whose guest writes to its disk without a pause, and has QEMU's guest agent."""

import json
import re
import shutil
import subprocess

from harness import libvirt, machine, scratch

AGENT = "/usr/sbin/qemu-ga"
MODULES = (*machine.MODULES, "char/virtio_console.ko")
SECONDS = 120  # a guest whose processor is emulated takes its time
MEMORY_MIB = 192
BOOT = """<kernel>{kernel}</kernel><initrd>{initramfs}</initrd><cmdline>console=ttyS0 quiet panic=-1</cmdline>"""
DEVICES = """<serial type='file'><source path='{console}'/></serial>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"""

# The first process. The agent says "freeze" before it freezes, and "thaw" once it has thawed.
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /run /etc /disk
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev
mount -t proc none /proc
mount -t sysfs none /sys
for module in /modules/*; do insmod $module; done
mount -t ext4 /dev/vda /disk || poweroff -f

cat > /bin/say <<'END'
#!/bin/busybox sh
read uptime rest < /proc/uptime
echo "witness: $uptime $*" > /dev/console
END
chmod 755 /bin/say
/usr/sbin/qemu-ga -m virtio-serial -p /dev/vport*p1 -t /run -F/bin/say &

count=0
while :; do
  count=$((count + 1))
  echo $count 1<> /disk/count  # never truncated: a freeze may come between that and the write
  sync
  say count $count
  usleep 20000
done
"""


def why_not():
    """Why there can be no such guest here; None when there can."""
    if reason := libvirt.why_not() or machine.why_not():
        return reason
    return None if shutil.which(AGENT) else f"{AGENT} is not installed"


def make_initramfs(kernel):
    said = subprocess.run(["ldd", AGENT], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", said)
    return kernel.make_initramfs("agent", INIT, MODULES, (AGENT, *libraries))


class AgentMachine:
    """A running domain of a libvirt.Session; its disk vda is a qcow2 image with an ext4 file system."""

    def __init__(self, session, name, kernel, initramfs, image):
        self.session = session
        self.name = name
        self.console = session.directory / f"{name}.console"
        session.define(name, {"vda": (image, "qcow2")}, memory_mib=MEMORY_MIB,
                       boot=BOOT.format(kernel=kernel.image, initramfs=initramfs),
                       devices=DEVICES.format(console=self.console))  # fmt: skip
        session.virsh("start", name)
        scratch.wait_until(self.count, SECONDS, "the guest writes")
        scratch.wait_until(self.agent_is_connected, SECONDS, "the agent is connected")

    def agent_is_connected(self):
        return "state='connected'" in self.session.virsh("dumpxml", self.name)

    def pause_agent(self, seconds):
        """Its port stays open: libvirt takes it for connected. It is the parent of the command it runs."""
        command = f"sleep 1; kill -STOP $PPID; say agent pauses; sleep {seconds}; kill -CONT $PPID"
        request = {"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", command]}}
        self.session.virsh("qemu-agent-command", self.name, json.dumps(request))
        scratch.wait_until(lambda: self.said("agent pauses"), SECONDS, "the agent pauses")

    def said(self, pattern):
        """(uptime, text) of what the guest has said of itself."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return [(float(uptime), word) for uptime, word in re.findall(rf"^witness: ([\d.]+) ({pattern})\r?\n", text, re.M)]

    def count(self):
        """What it has last written, and synced."""
        counts = self.said(r"count \d+")
        return int(counts[-1][1].split()[1]) if counts else 0
