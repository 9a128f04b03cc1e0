"""VectorSource: a file of vectors, read by slices, so that memory follows the slice and never the file.

    open_vectors(path) -> VectorSource
                            +-- MappedSource   fvecs family, fbin family, npy: views of a mapped file
                            +-- Hdf5Source     one dataset of an HDF5 file
                            +-- TableSource    Parquet, CSV, JSONL: vectors, ids and fields

Threads: mapped sources may be read from any number of threads; HDF5 and tables from one at a time.
Invariants: `shape`, `dtype` never change after opening; a slice has exactly the rows asked for or the read raises.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import InvalidArgument, Unavailable

Array = NDArray[Any]


class VectorSource(ABC):
    """An open file of vectors.

    Attributes
    ----------
    path : str
    format : str
        One of `FORMATS`.
    shape : (n, dim)
    dtype : numpy.dtype
        Of the slices, in native byte order.
    check_finite : bool
        Refuse NaN and infinity when a slice is read.
    """

    def __init__(self, path: str, format: str, shape: tuple[int, int], dtype: Any, check_finite: bool) -> None:
        self.path = path
        self.format = format
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.check_finite = check_finite

    @abstractmethod
    def _read(self, start: int, stop: int) -> Array:
        """Rows [start, stop), 0 <= start < stop <= n, unchecked for NaN."""

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
        if self.check_finite:
            require_finite(block, self.path, start)
        return block

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


def require_finite(block: Array, path: str, first_row: int) -> None:
    """Raise InvalidArgument naming the first NaN or infinity of a float block; other kinds pass."""
    if block.dtype.kind != "f":
        return
    good = np.isfinite(block)
    if good.all():
        return
    row, column = (int(i[0]) for i in np.nonzero(~good))
    raise InvalidArgument(
        f"{path}: row {first_row + row}, component {column} is {block[row, column]}: expected a finite number. "
        "Remove the row, or open with check_finite=False to look at it"
    )


def optional_module(name: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise Unavailable(f"{purpose} needs {package}: pip install 'vecdb-engine[data]'") from error
