"""The list file: sealed, page-aligned extents, one per posting list; appended to, never overwritten.

    file    := header page, extent*
    header  := magic "VLST" | version u32 | uid u64 | entry_bytes u32 | crc u32, CRC-32 of what precedes | zeros
    extent  := crc u32 | magic "VEXT" | page u64 | uid u64 | count u32 | entry_bytes u32 | sequence u64 | 24 zero bytes
               body[count * entry_bytes], zeros up to a page

crc of an extent is the CRC-32C of everything after it in the extent. page is the extent's own position in the file, and
uid identifies the file, so that an extent at another position than its pointer says is noticed. A list that changes
gets a new extent; the directory (index/spann/list_directory.py) says which extents are in use, and a file that consists
mostly of unused ones is rewritten.

Thread rule: one thread appends; any number read through descriptors that live as long as the object.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.storage.disk import filesystem, mapped_memory
from vecdb.storage.disk.filesystem import PAGE as PAGE  # for those who work with extents, too

EXTENT_BYTES = 64
_FILE = struct.Struct("<4sIQI")
_FILE_MAGIC = b"VLST"
_VERSION = 1
EXTENT = np.dtype(
    [
        ("crc", "<u4"),
        ("magic", "S4"),
        ("page", "<u8"),
        ("uid", "<u8"),
        ("count", "<u4"),
        ("entry_bytes", "<u4"),
        ("sequence", "<u8"),
        ("zeros", "V24"),
    ]
)
assert EXTENT.itemsize == EXTENT_BYTES


def pages_of(counts: NDArray[np.integer], entry_bytes: int) -> NDArray[np.int64]:
    """How many pages the extents of lists with so many entries take."""
    pages: NDArray[np.int64] = -(-(EXTENT_BYTES + counts.astype(np.int64) * entry_bytes) // PAGE)
    return pages


def headers(
    pages: NDArray[np.int64], counts: NDArray[np.integer], uid: int, entry_bytes: int, sequence: int
) -> NDArray[np.uint8]:
    """uint8[n, 64]: headers of extents that start at these pages, their crc still zero."""
    out = np.zeros(len(pages), EXTENT)
    out["magic"], out["uid"], out["entry_bytes"], out["sequence"] = b"VEXT", uid, entry_bytes, sequence
    out["page"], out["count"] = pages, counts
    return out.view(np.uint8).reshape(-1, EXTENT_BYTES)


class ListFile:
    """An open list file. verified : uint8 per page, set where this process has compared an extent with its checksum."""

    def __init__(self, path: Path, uid: int, entry_bytes: int, *, writable: bool) -> None:
        self.path = path
        self.uid = uid
        self.entry_bytes = entry_bytes
        self._write_fd = -1
        self.fd = filesystem.open_direct(path)
        try:
            self.page_count = filesystem.size(self.fd) // PAGE
            if writable:
                self._write_fd = filesystem.open_append(path)
        except BaseException:
            self.close()
            raise
        self.verified: NDArray[np.uint8] = mapped_memory.reserve_memory(max(1 << 16, 4 * self.page_count), np.uint8)

    @classmethod
    def create(cls, path: Path, uid: int, entry_bytes: int) -> ListFile:
        filesystem.write_atomic(path, [_header(uid, entry_bytes)], sync=False)
        return cls(path, uid, entry_bytes, writable=True)

    @classmethod
    def open(cls, path: Path, uid: int, entry_bytes: int, page_count: int, *, writable: bool) -> ListFile:
        """Open a file whose first `page_count` pages are in use; a writer overwrites what lies behind them.

        Raises Corruption where it is not the file that the directory means; FileNotFoundError.
        """
        fd = filesystem.open_read(path)
        try:
            raw = filesystem.pread(fd, PAGE, 0)
            length = filesystem.size(fd)
        finally:
            filesystem.close(fd)
        if raw != _header(uid, entry_bytes):
            raise Corruption(
                f"{path}: its header is not that of list file {uid}; the index can be rebuilt from the rows"
            )
        if length < page_count * PAGE:
            raise Corruption(
                f"{path}: {length} bytes, expected at least {page_count * PAGE}; the index can be rebuilt from the rows"
            )
        opened = cls(path, uid, entry_bytes, writable=writable)
        opened.page_count = page_count
        return opened

    def append(self, buffer: NDArray[np.uint8]) -> None:
        """Write whole pages at the end. Raises OSError, and then nothing counts as appended."""
        assert len(buffer) % PAGE == 0
        pages = self.page_count + len(buffer) // PAGE
        filesystem.pwrite(self._write_fd, buffer, self.page_count * PAGE)
        if pages > len(self.verified):
            larger = mapped_memory.reserve_memory(4 * pages, np.uint8)
            larger[: len(self.verified)] = self.verified
            self.verified = larger
        self.page_count = pages

    def sync(self) -> None:
        filesystem.fdatasync(self._write_fd)

    def close(self) -> None:
        for name in ("fd", "_write_fd"):
            fd = getattr(self, name, -1)
            setattr(self, name, -1)
            if fd >= 0:
                filesystem.close(fd)

    def __del__(self) -> None:
        self.close()  # not earlier: searches of an index that was replaced may still read


def _header(uid: int, entry_bytes: int) -> bytes:
    head = _FILE.pack(_FILE_MAGIC, _VERSION, uid, entry_bytes)
    return (head + struct.pack("<I", zlib.crc32(head))).ljust(PAGE, b"\0")
