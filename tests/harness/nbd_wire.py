# SPDX-License-Identifier: Apache-2.0
"""NBD byte by byte: a client that can also say what no good client would."""

import socket
import ssl
import struct
from dataclasses import dataclass

GREETING = b"NBDMAGIC" + b"IHAVEOPT" + b"\x00\x03"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_REPLY_MAGIC = 0x6E8A278C

EXPORT_NAME, ABORT, LIST, PEEK_EXPORT, STARTTLS, INFO, GO = range(1, 8)
STRUCTURED_REPLY, LIST_META, SET_META, EXTENDED_HEADERS = range(8, 12)
ACK, SERVER, INFO_REPLY, META_CONTEXT = range(1, 5)
ERR = 1 << 31
ERR_UNSUP, ERR_POLICY, ERR_INVALID = ERR + 1, ERR + 2, ERR + 3
ERR_PLATFORM, ERR_TLS_REQD = ERR + 4, ERR + 5
ERR_UNKNOWN, ERR_SHUTDOWN, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = ERR + 6, ERR + 7, ERR + 9, ERR + 10

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
NONE, DATA, HOLE, STATUS, STATUS_EXT, ERROR, ERROR_OFFSET = 0, 1, 2, 5, 6, 0x8001, 0x8002
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 22, 28, 75, 95, 108

PATIENCE_SECONDS = 20


class Closed(Exception):
    """The server has ended the stream."""


@dataclass
class Chunk:
    """A structured chunk, or a simple reply (then type is None)."""

    type: int | None
    cookie: int
    done: bool = True
    error: int = 0
    payload: bytes = b""
    request_offset: int | None = None  # with extended headers

    @property
    def offset(self):
        return int.from_bytes(self.payload[:8], "big")

    @property
    def text(self):
        return self.payload[6 : 6 + int.from_bytes(self.payload[4:6], "big")].decode()

    @property
    def runs(self):
        if self.type == STATUS_EXT:
            count = int.from_bytes(self.payload[4:8], "big")
            assert len(self.payload) == 8 + 16 * count, (len(self.payload), count)
            return [struct.unpack_from(">QQ", self.payload, at) for at in range(8, len(self.payload), 16)]
        return [struct.unpack_from(">II", self.payload, at) for at in range(4, len(self.payload), 8)]

    @property
    def context_id(self):
        return int.from_bytes(self.payload[:4], "big")


def option(number, data=b""):
    return OPTION_MAGIC + struct.pack(">II", number, len(data)) + data


def info_data(name, wanted=()):
    raw = name.encode() if isinstance(name, str) else name
    return struct.pack(">I", len(raw)) + raw + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def meta_data(name, queries=()):
    parts = [struct.pack(">I", len(name)), name.encode(), struct.pack(">I", len(queries))]
    for query in queries:
        parts += [struct.pack(">I", len(query)), query.encode()]
    return b"".join(parts)


def request(command, offset=0, length=0, flags=0, cookie=7, payload=b""):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, flags, command, cookie, offset, length) + payload


def extended_request(command, offset=0, length=0, flags=0, cookie=7, payload=b""):
    """With a payload, the length is that of the payload, and PAYLOAD_LEN says so."""
    flags, length = (flags | PAYLOAD_LEN, len(payload)) if payload else (flags, length)
    return extended_header(command, offset, length, flags, cookie) + payload


def qemu_request(command, offset=0, length=0, flags=0, cookie=7, payload=b""):
    """As qemu 10.0 speaks extended headers: it never says PAYLOAD_LEN, also where a payload follows."""
    return extended_header(command, offset, length or len(payload), flags, cookie) + payload


def extended_header(command, offset, length, flags, cookie):
    return struct.pack(">IHHQQQ", EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)


def status_filter(length, ids):
    return struct.pack(f">Q{len(ids)}I", length, *ids)


def write(offset, payload, flags=0, cookie=7):
    return request(WRITE, offset, len(payload), flags, cookie, payload)


class Wire:
    """One connection; every wait ends after PATIENCE_SECONDS with an error."""

    extended_form = staticmethod(extended_request)  # how it asks with extended headers

    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.connect(address)
        self.structured = self.extended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(min(count - len(data), 1 << 20))
            if not part:
                raise Closed(f"the stream ended {len(data)} bytes into {count}")
            data += part
        return bytes(data)

    def ends(self, seconds=PATIENCE_SECONDS):
        """True when the stream ends without another byte (and without a reset)."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return False
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)

    def is_dropped(self):
        """True when the stream ends without another byte, in whatever way."""
        try:
            return self.socket.recv(1) == b""
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return True

    def is_quiet(self, seconds=0.2):
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1)
            return False
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)

    # --- handshake ---

    def hello(self, flags=3):
        assert self.receive(18) == GREETING
        self.send(struct.pack(">I", flags))
        return self

    def answer(self):
        """(option, reply type, data) of one option reply."""
        magic, number, kind, length = struct.unpack(">QIII", self.receive(20))
        assert magic == OPTION_REPLY_MAGIC, hex(magic)
        return number, kind, self.receive(length)

    def answers(self):
        """(reply type, data) of all replies up to the final one."""
        found = []
        while True:
            _, kind, data = self.answer()
            found.append((kind, data))
            if kind == ACK or kind >= ERR:
                return found

    def start_tls(self, context, server_name="localhost"):
        """STARTTLS and the TLS handshake; ssl.SSLError or Closed when the server will not."""
        assert self.ask(STARTTLS)[0] == ACK
        self.socket = context.wrap_socket(self.socket, server_hostname=server_name, suppress_ragged_eofs=False)
        return self

    def ask(self, number, data=b""):
        """(reply type, text) of the final reply."""
        self.send(option(number, data))
        kind, text = self.answers()[-1]
        return kind, text.decode()

    def ask_all(self, number, data=b""):
        self.send(option(number, data))
        return self.answers()

    def info(self, name, wanted=(3,), number=INFO):
        """{info number: data} of INFO or GO."""
        answers = self.ask_all(number, info_data(name, wanted))
        assert answers[-1][0] == ACK, answers
        return {int.from_bytes(data[:2], "big"): data[2:] for kind, data in answers if kind == INFO_REPLY}

    def transmission(self, name, structured=True, contexts=(), extended=False):
        """Greeting, options and GO; returns self, in the transmission phase."""
        self.hello()
        if extended:
            assert self.ask(EXTENDED_HEADERS)[0] == ACK
            self.structured = self.extended = True
        elif structured:
            assert self.ask(STRUCTURED_REPLY)[0] == ACK
            self.structured = True
        if contexts:
            assert len(self.ask_all(SET_META, meta_data(name, contexts))) == len(contexts) + 1
        self.info(name, number=GO)
        return self

    # --- transmission ---

    def reply(self, data_bytes=0):
        """The next simple reply or structured chunk."""
        magic = int.from_bytes(self.receive(4), "big")
        assert (magic == EXTENDED_REPLY_MAGIC) == self.extended, hex(magic)
        if self.extended:
            flags, kind, cookie, offset, length = struct.unpack(">HHQQQ", self.receive(28))
            payload = self.receive(length)
            error = int.from_bytes(payload[:4], "big") if kind >= ERROR else 0
            return Chunk(kind, cookie, bool(flags & 1), error, payload, offset)
        if magic == SIMPLE_MAGIC:
            error, cookie = struct.unpack(">IQ", self.receive(12))
            return Chunk(None, cookie, error=error, payload=b"" if error else self.receive(data_bytes))
        assert magic == CHUNK_MAGIC, hex(magic)
        flags, kind, cookie, length = struct.unpack(">HHQI", self.receive(16))
        payload = self.receive(length)
        error = int.from_bytes(payload[:4], "big") if kind >= ERROR else 0
        return Chunk(kind, cookie, bool(flags & 1), error, payload)

    def do(self, command, offset=0, length=0, flags=0, payload=b"", cookie=7):
        """One request and all its chunks."""
        form = self.extended_form if self.extended else request
        self.send(form(command, offset, length or len(payload), flags, cookie, payload))
        data_bytes = length if command == READ else 0
        chunks = [self.reply(data_bytes)]
        while not chunks[-1].done:
            chunks.append(self.reply())
        assert {chunk.cookie for chunk in chunks} == {cookie}
        return chunks

    def error(self, *args, **more):
        """The error number of one request; 0 for success."""
        return max(chunk.error for chunk in self.do(*args, **more))

    def pread(self, offset, length, flags=0):
        data = bytearray(length)
        for chunk in self.do(READ, offset, length, flags):
            assert chunk.error == 0, chunk
            if chunk.type is None:
                data[:] = chunk.payload
            elif chunk.type == DATA:
                at = chunk.offset - offset
                data[at : at + len(chunk.payload) - 8] = chunk.payload[8:]
        return bytes(data)

    def pwrite(self, offset, payload, flags=0):
        assert self.error(WRITE, offset, flags=flags, payload=payload) == 0

    def status(self, offset, length, flags=0):
        """{context id: runs} of BLOCK_STATUS."""
        return {chunk.context_id: chunk.runs for chunk in self.do(BLOCK_STATUS, offset, length, flags)}


class QemuWire(Wire):
    """The client of qemu 10.0, as far as the server can tell."""

    extended_form = staticmethod(qemu_request)
