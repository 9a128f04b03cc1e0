"""COMMITTED: the number of the newest commit, kept beside LMDB, which has no checksum over what names it.

    COMMITTED := magic "VCOM" | version u16 | zero u16 | sequence u64 | crc32 u32 of these     little-endian

LMDB is left with the commit before when its newest meta page is damaged, or with an older one when another file is put
in its place, and nothing inside it can tell that from the newest. The mark is written after each commit, without a
sync. So it is never ahead of what was acknowledged, and may be behind after a power cut; an LMDB that is behind it has
lost a commit. A mark that is damaged or missing says nothing.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

from vecdb.errors import Corruption
from vecdb.storage.disk import filesystem, manifest

NAME = "COMMITTED"
_HEAD = struct.Struct("<4sHHQ")
_BYTES = _HEAD.size + 4
_MAGIC, _VERSION = b"VCOM", 1


def encode(sequence: int) -> bytes:
    head = _HEAD.pack(_MAGIC, _VERSION, 0, sequence)
    return head + zlib.crc32(head).to_bytes(4, "little")


def read(folder: Path) -> int:
    """The number of a commit that was acknowledged; 0 where the mark says nothing."""
    if filesystem.kind_of(folder / NAME) == "nothing":
        return 0
    fd = filesystem.open_read(folder / NAME)
    try:
        raw = filesystem.pread(fd, _BYTES, 0)
    finally:
        filesystem.close(fd)
    marked = int(_HEAD.unpack_from(raw)[3]) if len(raw) == _BYTES else 0
    return marked if raw == encode(marked) else 0


def compare(folder: Path, marked: int, sequence: int) -> None:
    """Raise Corruption where the commit `marked` was acknowledged and `sequence` is the newest that LMDB has."""
    if sequence < marked:
        raise Corruption(
            f"{folder / 'lmdb'} ends with commit {sequence}, commit {marked} was acknowledged: its meta page is "
            f"damaged, or an older file was put there. Restore the database from a backup, or remove {folder / NAME} "
            "to go on without what came since"
        )


class CommitMark:
    """The mark of an open database. One thread writes it."""

    def __init__(self, folder: Path, sequence: int, *, lag: int) -> None:
        """lag : how many of the newest commits a power cut may undo."""
        self._lag = lag
        self._fd = -1
        with contextlib.suppress(OSError):  # a full disk: then there is none
            exists = filesystem.kind_of(folder / NAME) != "nothing"
            self._fd = filesystem.open_append(folder / NAME, create=not exists)
            if not exists:
                filesystem.copy_mode(folder / manifest.NAME, folder / NAME)
        self.write(sequence)

    def write(self, sequence: int) -> None:
        """After a commit. What fails leaves the mark of an earlier one, or none."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                filesystem.pwrite(self._fd, encode(max(0, sequence - self._lag)), 0)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            filesystem.close(fd)
