"""Arrays aligned with rows that grow: in anonymous memory, or in an unlinked file that the system may write out.

    memory   reserved, touched on demand, counts as memory of this process
    file     sparse, without a name, gone with the process; its pages are page cache, which the system may take back

Where the disk has no room for the file it is memory: reading must not need room on a disk.

A collection whose index is on disk may keep only a few bytes of memory a row, so arrays that would take more (ids,
checksums, deletions) are backed by a file. When the disk is full a write into a hole of a mapped file would kill the
process: `allocate` allocates the disk space first, and raises instead.

Thread rule: one thread at a time reserves and allocates.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from vecdb.storage.disk import filesystem, mapped_memory

_STEP_BYTES = 1 << 16


class GrowableArrays:
    """folder : of the unlinked files; None: memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: dict[int, tuple[int, int]] = {}  # id of an array -> (descriptor, bytes allocated)

    def reserve(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros that costs nothing until touched. On disk it must be allocated before it is written."""
        if self._folder is None:
            return mapped_memory.reserve_memory(shape, dtype)
        try:
            fd = filesystem.open_unlinked(self._folder)
        except OSError:  # a reading process may not write here
            return mapped_memory.reserve_memory(shape, dtype)
        try:
            array = mapped_memory.map_sparse(fd, shape, dtype)
        except BaseException:
            filesystem.close(fd)
            raise
        self._files[id(array)] = (fd, 0)
        weakref.finalize(array, self._forget, id(array), fd).atexit = False
        return array

    def writable(self, array: NDArray[Any]) -> int:
        """How many of its elements may be touched."""
        _, allocated = self._files.get(id(array), (-1, array.nbytes))
        return min(len(array), allocated // array.itemsize)

    def leave_disk(self, error: OSError) -> None:
        """After `allocate` has raised: what is reserved from now on is memory. Raises the error again where it is
        another one than that the disk is full, or where it was memory already.
        """
        if self._folder is None or not filesystem.is_full(error):
            raise error
        self._folder = None

    def _forget(self, array_id: int, fd: int) -> None:
        del self._files[array_id]
        filesystem.close(fd)

    def allocate(self, count: int, *arrays: NDArray[Any]) -> None:
        """Make sure that the first `count` elements of arrays from `reserve` can be written. Raises OSError."""
        for array in arrays:
            fd, allocated = self._files.get(id(array), (-1, 0))
            used = count * array.itemsize
            if fd < 0 or used <= allocated:
                continue
            step = max(_STEP_BYTES, used // 16 // _STEP_BYTES * _STEP_BYTES)  # few calls for many rows, little spare
            wanted = min(array.nbytes, -(-used // step) * step)
            filesystem.allocate(fd, wanted)
            self._files[id(array)] = (fd, wanted)
