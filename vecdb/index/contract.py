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
from vecdb.index.row_set import RowSet
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import RowArrays


class IndexCorruption(Corruption):
    """What an index keeps on disk is not as it was written. Derived data: the rows are whole, answers can be exact, and
    the index can be built anew.
    """


Progress = Callable[[int, int], None] | None


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
