"""The contract every index keeps.

    rows [0, indexed_rows)              in the live structure
    rows [indexed_rows, row_count)      the tail: scanned, so that a row is found from the moment it is committed

Thread rule: `search` from any number of threads, without a lock, concurrently with one maintenance caller (`add`,
`remove`, `settle`, `seal`, `compact`, `check`) and one publisher (`extend`). A publisher calls `extend(row_count)`
before rows become visible; a search takes its snapshot first and passes it in, so what the index then reads is at least
as new.

Rows, crcs and deletions are read through `RowSource.arrays`, once per call. A row is visible at a snapshot iff
`row < row_count and deleted[row] - 1 >= sequence` in uint64 arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import RowArrays


class IndexCorruption(Corruption):
    """What an index keeps on disk is not as it was written. Derived data: the rows are whole, answers can be exact, and
    the index can be built anew.
    """


Progress = Callable[[int, int], None] | None
EVERYTHING: NDArray[np.uint64] = np.empty(0, np.uint64)  # the `allow` bitmap that allows every row


class RowSet:
    """Rows that a search may return: those of a tenant, or of a union of tenants, at one snapshot.

    rows : uint32[n], ascending, each once, all of them visible at the snapshot; never changed.
    keep : called with the size in bytes of the bitmap when it is kept; None: none is ever kept.

    Thread rule: any number of readers; two may build the bitmap at the same time, of which one stays.
    """

    __slots__ = ("_asked", "_bitmap", "_derived", "_keep", "rows")

    def __init__(self, rows: NDArray[np.uint32], keep: Callable[[int], None] | None = None) -> None:
        self.rows = rows
        self._keep = keep
        self._bitmap = EVERYTHING
        self._asked = False
        self._derived: tuple[object, NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        derived = self._derived
        return self.rows.nbytes + self._bitmap.nbytes + (0 if derived is None else derived[1].nbytes)

    def derived(self, key: object, make: Callable[[NDArray[np.uint32]], NDArray[Any]]) -> NDArray[Any]:
        """make(rows), kept as long as `key` is the same object. What an index wants to know of the rows, such as where
        it has them.
        """
        known = self._derived
        if known is not None and known[0] is key:
            return known[1]
        made = make(self.rows)
        self._derived = (key, made)
        if self._keep is not None:
            self._keep(made.nbytes - (0 if known is None else known[1].nbytes))
        return made

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `rows` (int64[n], each at least 0) are among these."""
        if not len(self.rows):
            return np.zeros(len(rows), bool)
        places = np.searchsorted(self.rows, rows.astype(np.uint32))
        return np.asarray(self.rows[np.minimum(places, len(self.rows) - 1)] == rows)

    def bitmap(self, row_count: int) -> NDArray[np.uint64]:
        """uint64[>= ceil(row_count / 64)], never empty: bit row & 63 of word row >> 6 is set for the rows. Made when
        asked for, kept from the second time on.
        """
        if len(self._bitmap) * 64 > row_count:
            return self._bitmap
        words = (row_count + row_count // 4) // 64 + 1  # room: a kept one serves while others' rows are added
        bits = np.zeros(64 * words, np.uint8)
        bits[self.rows] = 1
        made = np.packbits(bits, bitorder="little").view(np.uint64)
        if self._asked and self._keep is not None:
            self._keep(made.nbytes - self._bitmap.nbytes)
            self._bitmap = made
        self._asked = True
        return made


ALL_ROWS: NDArray[np.uint32] = np.empty(0, np.uint32)  # to kernels that scan a list of rows: no list, every row


class RowSource(Protocol):
    """Where an index reads rows: `storage.rows.Rows`, or anything with the same arrays."""

    arrays: RowArrays
    path: Path  # of the row file, which an index on disk reads by itself


@dataclass(slots=True)
class Neighbors:
    """What a search found, nearest first, ties by row.

    rows : int64[nq, limit], -1 beyond counts.   distances : float32[nq, limit], inf beyond counts.   counts :
    int64[nq].
    work : int64[any]: what was done, as the index that did it counts (`Index.explain` has the words).
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    counts: NDArray[np.int64]
    work: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SealedFile:
    """Facts of a sealed file: its size, the rows it covers, and the sequence up to which deletions are unlinked in
    it.
    """

    bytes: int
    rows: int
    sequence: int
    parts: tuple[tuple[str, int], ...] = ()  # further files that it needs: name, bytes of it that count


class Index(ABC):
    """See the module's text for the thread rule."""

    kind: ClassVar[str]
    patient: ClassVar[bool] = False  # built at once it is better, and sooner, than grown: a bulk load is waited for

    @property
    @abstractmethod
    def indexed_rows(self) -> int:
        """Rows below this number are in the live structure."""

    @property
    @abstractmethod
    def structure(self) -> object:
        """The same object as long as searches go the same way: another one with each change of `indexed_rows`."""

    @property
    def scan_share(self) -> int:
        """A look at all rows takes no longer than one at this share of them that lie scattered."""
        return 1

    @property
    def step_rows(self) -> int:
        """A tail of so many rows is worth a call of `add`."""
        return limits.index_step_rows

    @abstractmethod
    def extend(self, row_count: int) -> None:
        """Publisher: derive what a scan of the tail needs for rows below `row_count`, before they become visible."""

    @abstractmethod
    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        """Maintenance: move the tail rows [indexed_rows, stop) into the structure. progress : (rows done, rows), where
        one call takes long.
        """

    @abstractmethod
    def next_stop(self, row_count: int) -> int:
        """Where the next call of `add` should end, so that it stays short where it can be: at most row_count, and
        above `indexed_rows` where there is a tail. A function of row numbers alone.
        """

    @abstractmethod
    def remove(self, sequence: int, threads: int = 1) -> int:
        """Maintenance: unlink rows deleted at or before `sequence`, which no snapshot in use may still see. Returns how
        many.
        """

    @abstractmethod
    def settle(self, threads: int = 1) -> int:
        """Maintenance: make every live indexed row reachable. Returns how many were not."""

    @abstractmethod
    def search(
        self,
        queries: NDArray[Any],
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet | None = None,
    ) -> Neighbors:
        """Nearest visible rows: exactly min(limit, matching) per query.

        queries : [nq, dim], float32 (other types are converted), finite.   limit : >= 1.
        allow : rows that may be returned; None: all. With `params.exact` those are scanned and no others.
        Raises Corruption when a row that is scored does not match its checksum; IndexDamaged; OSError.
        """

    def searching(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> Callable[[NDArray[np.float32]], Neighbors]:
        """`search` but for the queries (float32[nq, dim], C-contiguous), for callers that ask the same again: whoever
        holds it asks for another once `structure` is another object.
        """
        return partial(self.search, limit=limit, visibility=visibility, params=params, allow=allow)

    @abstractmethod
    def centres(self, row_count: int) -> NDArray[np.float32]:
        """Centres of the cells that this index sorts rows into: float32[c, dim], of unit norm under cosine, c about
        sqrt(rows / 50) (partition.py).

        row_count : of the caller's snapshot, at least 1; cells of an index without a tree follow from it and the rows
        alone.
        Raises Corruption when a row that is looked at does not match its checksum.
        """

    @abstractmethod
    def seal(self, path: Path) -> SealedFile:
        """Maintenance: write the structure as one immutable, checksummed file."""

    @abstractmethod
    def check(self) -> list[str]:
        """Violated invariants, in words; empty when well."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Figures for people: rows, bytes, parameters."""

    @abstractmethod
    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        """`Neighbors.work` in words, for `explain`."""

    @abstractmethod
    def compact(self, mapping: NDArray[np.int64], rows: RowSource) -> Index:
        """A new index over `rows`, renumbered by mapping (int64[old rows], ascending, -1 = gone), without a rebuild."""

    def has_graph(self) -> bool:
        """Whether it has one beside its own structure, which searches with an `ef` go through."""
        return False

    def ask_for_graph(self) -> bool:
        """A search would be answered sooner by one. Whether it is the first."""
        return False

    def companion_is_due(self, *, all_rows: bool = False) -> bool:
        """Whether `grow_companion` has something to do: a step that is worth it, or with `all_rows` any."""
        return False

    def grow_companion(self, threads: int = 1) -> None:
        """Maintenance: one step of what searches have asked for beside the structure."""
        raise AssertionError("there is none")

    def lacks_seal(self) -> bool:
        """Whether the sealed file lacks much of what stands beside the structure."""
        return False

    @property
    def seal_mark(self) -> str:
        """What a sealed file of as many rows is told from another by."""
        return ""

    @property
    def learning_cost(self) -> float:
        """Time that learning its recall takes, as a share of that of indexing all rows: expected, for progress."""
        return 0.02

    def file_names(self) -> tuple[str, ...]:
        """Files in its collection's folder that it uses now, sealed or not."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let go of threads. Searches that run go on."""


def corrupt_row_error(row: int, arrays: RowArrays) -> Corruption:
    """The error for a row whose bytes do not match its checksum."""
    from vecdb.kernels.primitives import checksums

    actual = int(checksums.crc_rows(np.array(arrays.vectors[row : row + 1]))[0])
    return Corruption(
        f"row file, row {row}: checksum {actual:#010x}, expected {int(arrays.crcs[row]):#010x}; "
        "the vector on disk is damaged, restore the database from a backup"
    )
