"""Where arrays aligned with rows live: anonymous memory, or an unlinked file that the system may write out.

    memory   reserved, touched on demand, counts as the process's own
    file     sparse, without a name, gone with the process; its pages are page cache, which gives way under pressure

A collection whose index is on disk keeps a few bytes of memory a row at most, so what would cost more a row (ids,
checksums, deletions) is backed by a file. A write into a hole of a mapped file ends the process where the disk is full:
`allocate` takes the place on the disk first, and raises instead.

Thread rule: one thread at a time reserves and allocates.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from vecdb.storage.disk import filesystem

_STEP_BYTES = 1 << 16


class GrowableArrays:
    """folder : of the unlinked files; None: memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: dict[int, tuple[int, int]] = {}  # id of an array -> (descriptor, bytes allocated)

    def reserve(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros that cost nothing until touched. On disk they must be allocated before they are written."""
        if self._folder is None:
            return filesystem.reserve_memory(shape, dtype)
        try:
            fd = filesystem.open_unlinked(self._folder)
        except OSError:  # a reading process may not write here
            return filesystem.reserve_memory(shape, dtype)
        try:
            array = filesystem.map_sparse(fd, shape, dtype)
        except BaseException:
            filesystem.close(fd)
            raise
        self._files[id(array)] = (fd, 0)
        weakref.finalize(array, self._forget, id(array), fd).atexit = False
        return array

    def _forget(self, name: int, fd: int) -> None:
        del self._files[name]
        filesystem.close(fd)

    def allocate(self, array: NDArray[Any], count: int) -> None:
        """Make sure that the first `count` elements of an array from `reserve` can be written. Raises OSError."""
        fd, done = self._files.get(id(array), (-1, 0))
        if fd < 0 or count * array.itemsize <= done:
            return
        used = count * array.itemsize
        step = max(_STEP_BYTES, used // 16 // _STEP_BYTES * _STEP_BYTES)  # few calls for many rows, little room for few
        wanted = min(array.nbytes, -(-used // step) * step)
        filesystem.allocate(fd, wanted)
        self._files[id(array)] = (fd, wanted)
