"""Messages in a file, each after its length in four bytes. Standard library only."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path


def write(path: Path, messages: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for message in messages:
            file.write(struct.pack("<I", len(message)) + message)


def read(path: Path) -> list[bytes]:
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found
