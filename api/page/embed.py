#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the files of the page as C++:  embed.py OUTPUT FILE...

The build calls it (api/meson.build). `chart.min.js` is Debian's Chart.js, with its licence notice at its head.
"""

import hashlib
import sys
from pathlib import Path

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LINE_BYTES = 96
PLAIN = set(range(0x20, 0x7F)) - set(b'"\\?')  # two question marks may begin a trigraph


def literal(content):
    """The bytes as C++ strings, a line of the output each; octal, because a digit may follow."""
    lines = []
    for begin in range(0, len(content), LINE_BYTES):
        piece = content[begin : begin + LINE_BYTES]
        lines.append('    "' + "".join(chr(byte) if byte in PLAIN else f"\\{byte:03o}" for byte in piece) + '"')
    return "\n".join(lines) or '    ""'


def entry(path):
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return (f'    {{"{path.name}", "{TYPES[path.suffix]}", "\\"{digest}\\"", std::string_view(\n'
            f"{literal(content)},\n    {len(content)})}},\n")  # fmt: skip


def main():
    output, *files = map(Path, sys.argv[1:])
    entries = "".join(entry(path) for path in sorted(files, key=lambda path: path.name))
    output.write_text(f"""// Made by api/page/embed.py.
#include "api/page.h"

namespace api {{
namespace {{

constexpr PageFile kFiles[] = {{
{entries}}};

}}  // namespace

std::span<const PageFile> page_files() {{ return kFiles; }}

}}  // namespace api
""")


if __name__ == "__main__":
    main()
