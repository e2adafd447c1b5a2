#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Records what real clients and `varve nbd` say to each other, as the seeds of the fuzzers.

  VARVE=build/app/varve tests/fuzz/record.py tests/fuzz/corpus

A proxy stands between them; the disk is as small as the fuzzers' own.  Payloads are a few hundred
bytes, so that the whole corpus stays a few kilobytes.
"""

import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import image_server, scratch  # noqa: E402
from harness.nbd_wire import *  # noqa: E402, F403  the wire's words are this file's vocabulary

SIZE = (1 << 20) + 100
SEED_BYTES_MAX = 2000


class Proxy:
    """Passes connections on to `target` and keeps the bytes of each, both ways."""

    def __init__(self, path, target):
        self.target, self.sessions = target, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            said, answered = bytearray(), bytearray()
            self.sessions.append((said, answered))
            for source, sink, kept in ((client, server, said), (server, client, answered)):
                threading.Thread(target=self.pump, args=(source, sink, kept), daemon=True).start()

    @staticmethod
    def pump(source, sink, kept):
        try:
            while data := source.recv(1 << 16):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def handshake_bytes(said):
    """Where the client's transmission phase starts; what was negotiated."""
    at, structured, extended, contexts = 4, False, False, 0
    while at + 16 <= len(said) and said[at : at + 8] == OPTION_MAGIC:
        number, length = struct.unpack_from(">II", said, at + 8)
        data = said[at + 16 : at + 16 + length]
        at += 16 + length
        structured |= number == STRUCTURED_REPLY
        extended |= number == EXTENDED_HEADERS
        if number == SET_META:
            name_bytes = int.from_bytes(data[:4], "big")
            contexts = int.from_bytes(data[4 + name_bytes : 8 + name_bytes], "big")
        if number in (GO, EXPORT_NAME, ABORT):
            break
    return at, structured, extended, contexts


def run(*command, stdin=b""):
    subprocess.run([str(word) for word in command], input=stdin, check=True, capture_output=True)


def extended_session(address):
    with Wire(address).transmission("disk", contexts=("base:allocation", "qemu:allocation-depth"), extended=True) as wire:
        wire.pwrite(4000, b"e" * 200)
        wire.pread(3900, 400)
        wire.do(READ, 0, 4096, flags=DF)
        wire.do(WRITE_ZEROES, 0, 8192, flags=FAST_ZERO)
        wire.do(BLOCK_STATUS, 0, SIZE)
        wire.do(BLOCK_STATUS, 0, payload=status_filter(SIZE, [2]), flags=REQ_ONE)
        wire.do(BLOCK_STATUS, 0, payload=status_filter(SIZE, [2, 9]))
        wire.do(TRIM, payload=b"no payload here")
        wire.do(FLUSH)
        wire.send(extended_request(DISC))


def qemu_session(address):
    """Extended headers as qemu 10.0 speaks them, with a payload that looks like requests."""
    with QemuWire(address).transmission("disk", contexts=("base:allocation",), extended=True) as wire:
        wire.pwrite(4096, extended_request(WRITE_ZEROES, 0, 512, cookie=666) * 4)
        wire.do(WRITE, SIZE, payload=extended_request(TRIM, 0, 512, cookie=666) * 2)
        wire.do(BLOCK_STATUS, 0, SIZE)
        wire.do(TRIM, 0, 512)
        wire.send(extended_request(DISC))


def simple_session(address):
    with Wire(address).hello(flags=2) as wire:
        wire.send(option(EXPORT_NAME, b"disk"))
        wire.receive(10)
        wire.pwrite(10, b"s" * 100, flags=FUA)
        wire.pread(0, 300)
        wire.error(CACHE, 0, 512)
        wire.error(TRIM, 5000, 9000)
        wire.send(request(DISC))


def refused_session(address):
    with Wire(address).hello() as wire:
        for number in (STARTTLS, PEEK_EXPORT, STRUCTURED_REPLY, EXTENDED_HEADERS, STRUCTURED_REPLY):
            wire.ask(number)
        wire.ask(INFO, info_data("nobody", (0, 1, 2, 3, 77)))
        wire.ask(LIST, b"x")
        wire.ask_all(LIST_META, meta_data("disk", ["qemu:", "qemu:dirty-bitmap:"]))
        wire.ask(SET_META, b"\0\0\0\4dis")
        wire.ask_all(ABORT)


class Ear(Wire):
    """Keeps what the server says."""

    def __init__(self, address):
        self.heard = bytearray()
        super().__init__(address)

    def receive(self, count):
        data = super().receive(count)
        self.heard += data
        return data


def client_session(address, structured, extended):
    """What the server says to fuzz_client.cc, when that does the same."""
    with Ear(address).hello() as wire:
        if structured:
            wire.ask(EXTENDED_HEADERS if extended else STRUCTURED_REPLY)
            wire.ask_all(SET_META, meta_data("disk", ("base:allocation", "qemu:allocation-depth")))
        wire.info("disk", (1, 2, 3), GO)
        wire.structured, wire.extended = structured, extended
        wire.do(READ, 4096, 600, cookie=1)
        cookie = 2
        if structured:
            wire.do(BLOCK_STATUS, 4096, 600, cookie=cookie)
            cookie += 1
        wire.do(WRITE, 0, payload=bytes(600), cookie=cookie)
        wire.do(WRITE_ZEROES, 0, 512, flags=FAST_ZERO, cookie=cookie + 1)
        wire.do(FLUSH, cookie=cookie + 2)
        return wire.heard


def clients(directory, address):
    uri = f"nbd+unix:///disk?socket={address}"
    raw = directory / "raw"
    raw.write_bytes(b"r" * 700 + bytes(SIZE - 700))
    yield "nbdinfo", lambda: run("nbdinfo", "--json", uri)
    yield "nbdinfo-list", lambda: run("nbdinfo", "--list", f"nbd+unix:///?socket={address}")
    yield "nbdinfo-map", lambda: run("nbdinfo", "--map=qemu:allocation-depth", uri)
    yield "nbdcopy", lambda: run("nbdcopy", "--connections=1", "--request-size=4096", "--flush", raw, uri)
    yield "qemu-io", lambda: run("qemu-io", "-f", "raw", "-c", "write -P 7 512 512", "-c", "write -z 4096 4096",
                                 "-c", "discard 8192 4096", "-c", "read 0 2048", "-c", "flush", uri)  # fmt: skip
    yield "qemu-img-map", lambda: run("qemu-img", "map", "-f", "raw", uri)
    yield "simple", lambda: simple_session(address)
    yield "extended", lambda: extended_session(address)
    yield "extended-qemu", lambda: qemu_session(address)
    yield "refused", lambda: refused_session(address)


def manifests():
    """(name, form, bytes) of a manifest's parts, by docs/manifest.md; their checks are fuzz_sums.cc's to make right."""
    zero, mended = 1 << 31, 4
    runs = ((0, 3), (9, 1), (10, 2 | zero), (4000, 1 | zero), (8191, 1))
    sums = b"".join(bytes([number]) * 16 for number in range(5))
    body = b"".join(struct.pack(">II", *run) for run in runs) + sums
    yield "block", mended, struct.pack(">IIQ", len(runs), 5, 0) + body
    yield "block-that-holds-nothing", mended, bytes(16)
    yield "block-that-is-damaged", 0, struct.pack(">IIQ", len(runs), 5, 0) + body
    for name, second in (("touch", (2, 1)), ("overlap", (1, 3)), ("leave-the-table", (8191, 2)), ("are-empty", (5, 0))):
        clusters = 2 + second[1]
        two = struct.pack(">IIQIIII", 2, clusters, 0, 0, 2, *second)
        yield f"block-whose-runs-{name}", mended, two + bytes(16 * clusters)
    yield "block-of-more-runs-than-bytes", mended, struct.pack(">IIQ", 0xFFFFFFFF, 0xFFFFFFFF, 0) + body
    yield "index", 1, struct.pack(">6Q", 0, 0, 3, 400, 9, 900)
    yield "index-out-of-order", 1, struct.pack(">6Q", 0, 0, 3, 400, 2, 900)
    footer = struct.pack(">QQQQ16sII", 7, 4096 - 72 - 32, 2, 1 << 30, b"u" * 16, 16, 1)
    yield "footer", 2 | mended, footer + bytes(8) + b"VARVSUMS"
    footer = struct.pack(">QQQQ16sII", 7, (1 << 64) - 72, 2, 1 << 30, b"u" * 16, 16, 1)
    yield "footer-whose-index-is-outside", 2 | mended, footer + bytes(8) + b"VARVSUMS"


def layouts():
    """(name, bytes) of the beginnings of disks, by the specifications of those who made the formats."""
    mbr = bytearray(512)
    struct.pack_into("<I", mbr, 440, 0xC0FFEE01)
    for number in range(4):
        struct.pack_into("<B3sB3sII", mbr, 446 + 16 * number, 0, b"", 0x83, b"", 2048 << number, 2048)
    mbr[510:] = b"\x55\xaa"
    yield "mbr", mbr
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 1 << 16, 92, 0, 0, 1, 2047, 34, 2014, b"g" * 16, 2, 4, 128, 0)
    entries = b"".join(struct.pack("<16s16sQQQ72s", b"t", b"u", first, first, 0, b"") for first in (34, 2048, 1 << 63))
    yield "gpt", bytes(512) + header.ljust(512, b"\0") + entries.ljust(512, b"\0")
    super_block = bytearray(1024)
    struct.pack_into("<H", super_block, 0x38, 0xEF53)
    struct.pack_into("<II", super_block, 0x5C, 4, 0x40)
    super_block[0x68:0x78] = bytes(range(16))
    yield "ext4", bytes(1024) + super_block
    yield "luks", (b"LUKS\xba\xbe".ljust(168, b"\0") + b"0dbd8e8a-1fbf-4cf5-8f3e-6d5d2c1f0a11").ljust(512, b"\0")
    yield "lvm", bytes(512) + b"LABELONE".ljust(24, b"\0") + b"LVM2 001" + b"abcdefghijklmnopqrstuvwxyz012345"
    yield "xfs", b"XFSB".ljust(32, b"\0") + bytes(range(16))
    yield "ntfs", b"\xeb\x52\x90NTFS    ".ljust(0x48, b"\0") + bytes(range(8))
    yield "fat32", bytes(67) + b"\1\2\3\4".ljust(15, b"\0") + b"FAT32   "
    yield "fat16", bytes(39) + b"\1\2\3\4".ljust(15, b"\0") + b"FAT16   "


def keep(corpus, fuzzer, name, form, data):
    path = corpus / fuzzer / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([form]) + bytes(data[:SEED_BYTES_MAX]))


def main(corpus):
    for name, form, data in manifests():
        keep(corpus, "sums", name, form, data)
    (corpus / "layout").mkdir(exist_ok=True)
    for name, data in layouts():
        (corpus / "layout" / name).write_bytes(data)
    with scratch.directory() as directory:
        image = directory / "image.qcow2"
        assert image_server.create(image, SIZE).returncode == 0
        server = image_server.ImageServer(image, str(directory / "nbd.sock"), export="disk").wait()
        proxy = Proxy(str(directory / "proxy.sock"), str(directory / "nbd.sock"))
        for name, talk in clients(directory, str(directory / "proxy.sock")):
            proxy.sessions.clear()
            talk()
            said, answered = max(proxy.sessions, key=lambda session: len(session[0]))
            at, structured, extended, contexts = handshake_bytes(said)
            keep(corpus, "handshake", name, 0, said)
            if at < len(said):
                form = 2 if extended else 1 if structured else 0
                keep(corpus, "session", name, form | min(contexts, 7) << 3, said[at:])
        for structured, extended in ((False, False), (True, False), (True, True)):
            form = structured | extended << 1
            heard = client_session(str(directory / "nbd.sock"), structured, extended)
            keep(corpus, "client", ("simple", "structured", "", "extended")[form], form, heard)
        server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
