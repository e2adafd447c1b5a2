# SPDX-License-Identifier: Apache-2.0
"""qemu-img as an oracle.  varve never runs it; only tests do."""

import json
import subprocess
from pathlib import Path

TIMEOUT_SECONDS = 300


def _run(*arguments):
    return subprocess.run(
        ["qemu-img", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def _answer(*arguments):
    done = _run(*arguments)
    assert done.returncode == 0, f"qemu-img {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return done.stdout


def check(image):
    """Asserts the words and the status that a clean image gets."""
    done = _run("check", image)
    assert done.returncode == 0, f"check {image}: {done.stdout}{done.stderr}"
    assert "No errors were found on the image." in done.stdout, done.stdout


def compare(raw, image):
    """Asserts that the image reads like the raw file."""
    done = _run("compare", "-f", "raw", "-F", "qcow2", raw, image)
    assert done.returncode == 0 and "Images are identical." in done.stdout, (
        f"compare {raw} {image}: {done.stdout}{done.stderr}"
    )


def differs(raw, image):
    """True when the contents differ; other failures are errors of the test."""
    status = _run("compare", "-f", "raw", "-F", "qcow2", raw, image).returncode
    assert status in (0, 1), f"compare {raw} {image}: status {status}"
    return status == 1


def info(image, shared=False):
    """`qemu-img info` as an object; `shared` for an image that is being filled."""
    return json.loads(_answer("info", "--output=json", *(["-U"] if shared else []), image))


def info_text(image):
    return _answer("info", image)


def backing_chain(image):
    """File names from the newest layer to the oldest."""
    layers = json.loads(_answer("info", "--backing-chain", "--output=json", image))
    return [Path(layer["filename"]).name for layer in layers]


def extents(image):
    return json.loads(_answer("map", "--output=json", image))


def create(image, size, backing=None):
    extra = ["-b", str(backing), "-F", "qcow2"] if backing else []
    _answer("create", "-q", "-f", "qcow2", *extra, image, size)


def convert_to_raw(image, raw):
    _answer("convert", "-f", "qcow2", "-O", "raw", image, raw)


def verify(image, raw):
    """A point is right when the structure is clean and the content equals the source."""
    check(image)
    compare(raw, image)
