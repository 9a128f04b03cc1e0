"""Rows in a real row file for tests of indexes on disk: what `storage.rows.Rows` gives, with commits and deletions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives import checksums
from vecdb.schema import Visibility
from vecdb.storage.disk import row_format
from vecdb.storage.disk.row_file import RowArrays, Rows


class DiskRows:
    """A growing RowSource on disk. `delete` marks rows with the next sequence number."""

    def __init__(self, path: Path, vectors: NDArray[Any]) -> None:
        self.path = path
        dtype = str(vectors.dtype)
        Rows.create(path, dtype, vectors.shape[1], 0, sync=False)
        self._rows = Rows(path, dtype, vectors.shape[1], 0, writable=True, row_count=0)
        self.sequence = 1
        self.row_count = 0
        self.append(vectors)

    @property
    def arrays(self) -> RowArrays:
        return self._rows.arrays

    def append(self, vectors: NDArray[Any]) -> None:
        """Rows first, then their checksums, then the number that a snapshot counts them by."""
        vectors = np.ascontiguousarray(vectors)
        stop = self.row_count + len(vectors)
        self._rows.ensure(stop)
        if len(vectors):
            self._rows.write(self.row_count, vectors)
        self.arrays.crcs[self.row_count : stop] = checksums.crc_rows(vectors)
        self.row_count = stop
        self.sequence += 1

    def delete(self, rows: NDArray[Any]) -> None:
        self.arrays.deleted[rows] = self.sequence + 1
        self.sequence += 1

    def visibility(self) -> Visibility:
        return Visibility(self.sequence, self.row_count, len(self.live()))

    def live(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.arrays.deleted[: self.row_count] == 0)

    def damage(self, row: int) -> None:
        """Flip one bit of the row's first byte in the file."""
        at = row_format.HEADER_BYTES + row * self._rows.row_bytes
        with open(self.path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def close(self) -> None:
        self._rows.close()
