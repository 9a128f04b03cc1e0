"""VectorSource: a file of vectors, read by slices, so that memory follows the slice and never the file.

    open_vectors(path) -> VectorSource
                            +-- MappedSource   fvecs family, fbin family, npy, safetensors: views of a mapped file
                            +-- Hdf5Source     one dataset of an HDF5 file
                            +-- TableSource    Parquet, Arrow, CSV, JSON, word vectors: vectors, ids and fields
                            +-- ManySource     several files, one after the other
                            +-- PairSource     a file of vectors and the file of ids that an export wrote beside it

Threads: mapped sources may be read from any number of threads; HDF5 and tables from one at a time.
Invariants: `shape`, `dtype` never change after opening; a slice has exactly the rows asked for or the read raises.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import InvalidArgument, VecdbError

from .records.facts import CollectionFacts

Array = NDArray[Any]


class VectorSource(ABC):
    """An open file of vectors.

    Attributes
    ----------
    path : str
        What messages call the file.
    format : str
        One of `FORMATS`.
    shape : (n, dim)
    dtype : numpy.dtype
        Of the slices, in native byte order.
    check_finite : bool
        Refuse NaN and infinity when a slice is read.
    lenient : bool
        Rows that cannot be read are zeros, and told by `bad_rows`; otherwise reading the first of them raises.
    facts : CollectionFacts or None
        What the file says of the collection that it was exported from.
    metric : str or None
        What the file says by other means, such as an attribute.
    tells_access : bool
        Whether `tenants` and `owners` say who may see the records, without any facts.
    stamp : list or None
        Equal as long as the data are the same; None: the file's size and time say so.
    losses : dict
        What of the data is not in the rows, or not as it was, and why; it may grow while rows are read.
    """

    facts: CollectionFacts | None = None
    metric: str | None = None
    tells_access = False
    stamp: list[Any] | None = None

    def __init__(self, path: str, format: str, shape: tuple[int, int], dtype: Any, check_finite: bool) -> None:
        self.path = path
        self.format = format
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.check_finite = check_finite
        self.lenient = False
        self.losses: dict[str, str] = getattr(self, "losses", {})

    @abstractmethod
    def _read(self, start: int, stop: int) -> Array:
        """Rows [start, stop), 0 <= start < stop <= n, unchecked for NaN; zeros for rows that cannot be read."""

    def _broken(self, start: int, stop: int) -> dict[int, VecdbError]:
        """Rows of [start, stop) that cannot be read, and why."""
        return {}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dim(self) -> int:
        return self.shape[1]

    def __getitem__(self, rows: slice) -> Array:
        """Rows ``source[a:b]`` as dtype[b - a, dim]; may be a read-only view of the file.

        Raises
        ------
        InvalidArgument
            Not a plain slice, or a value is NaN or infinite.
        Corruption
            The bytes are not what the format says.
        """
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise InvalidArgument(f"{self.path}: read rows with a slice of step 1, such as source[0:1000]")
        start, stop = self._bounds(rows.start, rows.stop)
        if start == stop:
            return np.empty((0, self.dim), self.dtype)
        block = self._read(start, stop)
        assert block.shape == (stop - start, self.dim), block.shape
        self._require(start, stop)
        if not self.check_finite or block.dtype.kind != "f":
            return block
        wrong = self._not_finite(block, start)
        if wrong and not self.lenient:
            raise next(iter(wrong.values()))
        if wrong:
            block = block.copy()
            block[[row - start for row in wrong]] = 0
        return block

    def bad_rows(self, start: int = 0, stop: int | None = None) -> dict[int, VecdbError]:
        """Rows of [start, stop) that cannot be read or hold NaN or infinity, ascending, and why."""
        low, high = self._bounds(start, stop)
        if low == high:
            return {}
        block = self._read(low, high)
        found = self._broken(low, high)
        if self.check_finite and block.dtype.kind == "f":
            found = self._not_finite(block, low) | found
        return dict(sorted(found.items()))

    def _require(self, start: int, stop: int) -> None:
        """Raise what is wrong with the first row of [start, stop) that cannot be read, unless lenient."""
        if not self.lenient:
            for _, error in sorted(self._broken(start, stop).items()):
                raise error

    def _not_finite(self, block: Array, start: int) -> dict[int, VecdbError]:
        """Rows of a float block from row `start` on that hold NaN or infinity, ascending."""
        good = np.isfinite(block)
        if good.all():
            return {}
        found: dict[int, VecdbError] = {}
        for at in np.flatnonzero(~good.all(axis=1)).tolist():
            column = int(np.argmin(good[at]))
            found[start + at] = InvalidArgument(
                f"{self.path}: {self.line_of(start + at)}row {start + at}, component {column} is {block[at, column]}: "
                "expected a finite number. Remove the row, or open with check_finite=False to look at it"
            )
        return found

    def line_of(self, row: int) -> str:
        """ "line 8: " where the row is a line of a text; otherwise nothing."""
        return ""

    def place(self, row: int) -> str:
        """File, line and row, for a message about this row."""
        return f"{self.path}: {self.line_of(row)}row {row}"

    def chunks(self, rows: int = 16_384, start: int = 0) -> Iterator[tuple[int, Array]]:
        """Yield (first row, dtype[<= rows, dim]) in order, from row `start` on (to resume an import)."""
        if rows < 1:
            raise InvalidArgument(f"chunks(rows={rows}): at least 1 row a chunk")
        for first in range(start, len(self), rows):
            yield first, self[first : first + rows]

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        """Ids of rows [start, stop), or None when the file has none (use row numbers)."""
        return None

    def fields(self, start: int = 0, stop: int | None = None) -> list[dict[str, Any]] | None:
        """The other columns of rows [start, stop), one dict a row, or None when the file has none."""
        return None

    def owners(self, start: int = 0, stop: int | None = None) -> list[str] | None:
        """Owners of rows [start, stop), "" for nobody; None when the file does not say."""
        return None

    def tenants(self, start: int = 0, stop: int | None = None) -> list[list[str]] | None:
        """Names of who may see each of rows [start, stop); None when the file does not say."""
        return None

    def without_vectors(self, start: int = 0, stop: int | None = None) -> list[bool] | None:
        """Which of rows [start, stop) are records that have no vector, in whose places a slice has zeros; None when the
        file cannot hold such records.
        """
        return None

    @property
    def has_ids(self) -> bool:
        """Whether `ids` gives any."""
        return False

    def close(self) -> None:  # noqa: B027 - most sources have nothing to do
        """Close the file. Slices that were returned stay valid."""

    def __enter__(self) -> VectorSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "shape"):  # seen by a debugger, or in a report of an error, before the file is open
            return f"<{type(self).__name__}, not open>"
        return f"<{self.format} {self.shape[0]:,} x {self.shape[1]} {self.dtype} {os.path.basename(self.path)!r}>"

    def _bounds(self, start: int | None, stop: int | None) -> tuple[int, int]:
        low, high, _ = slice(start, stop).indices(len(self))
        return low, max(low, high)
