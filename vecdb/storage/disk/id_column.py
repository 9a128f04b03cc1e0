"""row -> id, in memory: what turns the rows that an index found into the ids that the caller knows.

    int ids   ids[row]                    int64, 8 bytes a row
    str ids   blob[ends[row]:ends[row+1]] utf-8, 8 bytes a row and the id itself

Read from the blocks at open and extended at each commit. One thread extends; any number of threads read, but only rows
that a snapshot published after the extension. Arrays that are full are replaced by larger ones, never moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.storage.disk.growable_arrays import GrowableArrays

_CAPACITY_MIN = 1 << 20


class IdColumn:
    """Ids by row. `kind` is None until the first write decides."""

    def __init__(self, backing: GrowableArrays | None = None) -> None:
        self._backing = backing or GrowableArrays()
        self.kind: str | None = None
        self.row_count = 0
        self._ints: NDArray[np.int64] = np.empty(0, np.int64)
        self._ends: NDArray[np.int64] = np.empty(0, np.int64)  # the id of a row is blob[ends[row]:ends[row + 1]]
        self._blob: NDArray[np.uint8] = np.empty(0, np.uint8)

    def ensure(self, kind: str, row_count: int, blob_bytes: int) -> None:
        """Make room for the ids of `row_count` rows, string ids of `blob_bytes` more bytes. Raises OSError."""
        if kind == "int":
            self._ints = self._room(self._ints, row_count, self.row_count)
            return
        self._ends = self._room(self._ends, row_count + 1, self.row_count + 1)
        base = int(self._ends[self.row_count])
        self._blob = self._room(self._blob, base + blob_bytes, base)

    def extend_ints(self, ids: NDArray[np.int64]) -> None:
        """Append ids (int64[n]) of the next n rows."""
        self.kind = "int"
        end = self.row_count + len(ids)
        self._ints = self._room(self._ints, end, self.row_count)
        self._ints[self.row_count : end] = ids
        self.row_count = end

    def extend_strs(self, blob: Any, lengths_end: NDArray[np.uint32]) -> None:
        """Append string ids: concatenated utf-8 `blob`, and end offsets within it (uint32[n])."""
        self.kind = "str"
        end = self.row_count + len(lengths_end)
        data = np.frombuffer(blob, np.uint8)
        self.ensure("str", end, len(data))
        base = int(self._ends[self.row_count])
        self._blob[base : base + len(data)] = data
        self._ends[self.row_count + 1 : end + 1] = lengths_end.astype(np.int64) + base
        self.row_count = end

    @property
    def ints(self) -> NDArray[np.int64] | None:
        """int64[>= row_count]: the ids, where they are ints; else None."""
        return self._ints if self.kind == "int" else None

    def take(self, rows: NDArray[np.int64], *, padded: bool = True) -> NDArray[Any]:
        """Ids of `rows` (int64[...]), same shape: int64, or object holding str; -1 and None where a row is -1.

        `padded=False` promises that no row is -1.
        """
        if self.kind != "str":
            if self.kind is None:
                return np.full(rows.shape, -1, np.int64)
            if padded and rows.size and rows.min() < 0:
                return np.where(rows < 0, np.int64(-1), self._ints[rows])
            return self._ints[rows]
        flat = rows.ravel()
        ends, blob = self._ends, self._blob
        starts, stops = ends[flat].tolist(), ends[flat + 1].tolist()
        out = np.empty(len(flat), object)
        out[:] = [
            None if row < 0 else blob[a:b].tobytes().decode()
            for row, a, b in zip(flat.tolist(), starts, stops, strict=True)
        ]
        return out.reshape(rows.shape)

    def memory_bytes(self) -> int:
        """Bytes touched."""
        if self.kind == "int":
            return 8 * self.row_count
        return 8 * self.row_count + (int(self._ends[self.row_count]) if self.kind else 0)

    def _room(self, array: NDArray[Any], needed: int, used: int) -> NDArray[Any]:
        """`array`, or a larger one with its first `used` entries, of which `needed` entries can be written."""
        capacity = max(_CAPACITY_MIN, 4 * needed)
        larger = array if needed <= len(array) else self._backing.reserve(capacity, array.dtype)
        try:
            self._backing.allocate(needed, larger)
        except OSError as error:
            self._backing.leave_disk(error)
            larger = self._backing.reserve(capacity, array.dtype)
        if larger is array:
            return array
        kept = array[:used]  # fewer where there was no array yet: a reserved one starts as zeros
        larger[: len(kept)] = kept
        return larger
