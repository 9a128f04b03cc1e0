"""What every index does, whatever its kind.

    rows [0, indexed_rows)              in the live structure
    rows [indexed_rows, row_count)      the tail: scanned, so that a row is found from the moment it is committed

Thread rule: any number of threads call `search`, without a lock, while one maintenance caller (`add`, `remove`,
`connect_unreachable`, `seal`, `renumbered`, `check`) and one publisher (`publish_rows`) are at work. The publisher
calls `publish_rows(row_count)` before the rows become visible. A search takes its snapshot first and passes it in, so
what the index then reads is at least as new.

Rows, crcs and deletions are read through `RowSource.arrays`, once per call. kernels/primitives/visibility.py says which
rows a snapshot sees.
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
    """What an index keeps on disk is not as it was written. The rows are whole: searches can scan them exactly, and the
    index can be built again from them.
    """


Progress = Callable[[int, int], None] | None


class RowSource(Protocol):
    """Where an index reads rows: `storage.disk.row_file.Rows`, or anything with the same arrays."""

    arrays: RowArrays
    path: Path  # of the row file, which an index on disk reads by itself


# float32[dim], C-contiguous, not checked -> (rows int64[limit] or their ids, distances float32[limit]); None where the
# general search must answer, or say what is wrong: fewer answers, a damaged row, a query that is not fit.
OneQuerySearch = Callable[[NDArray[np.float32]], tuple[NDArray[np.int64], NDArray[np.float32]] | None]


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

    def part(self, queries: slice, work: NDArray[np.int64]) -> Neighbors:
        """Views of what is there for some queries, to be filled, with a `work` of its own."""
        return Neighbors(self.rows[queries], self.distances[queries], self.counts[queries], work)

    def put(self, queries: NDArray[np.int64], found: Neighbors) -> None:
        """Replace the answers to some queries. found : at most as wide."""
        width = found.rows.shape[1]
        self.rows[queries, :width], self.distances[queries, :width] = found.rows, found.distances
        self.counts[queries] = found.counts


@dataclass(slots=True)
class Candidates(Neighbors):
    """Rows among which the nearest are, nearest first by estimate. As Neighbors, but [nq, any] wide, with estimates as
    `distances`: on the scale of the metric's distances, so that those of several indexes may be compared.

    margins : float32[nq, any], by how much an estimate may be off: a row may be among the nearest while its estimate
    is within the mean margin of the nearest ones past the last of them. 0 where the distance is exact.
    """

    margins: NDArray[np.float32]

    def part(self, queries: slice, work: NDArray[np.int64]) -> Candidates:
        margins = self.margins[queries]
        return Candidates(self.rows[queries], self.distances[queries], self.counts[queries], work, margins)

    def put(self, queries: NDArray[np.int64], found: Neighbors) -> None:
        """found : without margins its distances are exact."""
        width = found.rows.shape[1]
        self.rows[queries], self.distances[queries], self.margins[queries] = -1, np.inf, 0.0
        self.rows[queries, :width], self.distances[queries, :width] = found.rows, found.distances
        self.counts[queries] = found.counts
        if isinstance(found, Candidates):
            self.margins[queries, :width] = found.margins


@dataclass(frozen=True, slots=True)
class SealedFile:
    """What is known of a sealed file: its size, how many rows are in it, and up to which sequence deleted rows are
    unlinked in it.
    """

    bytes: int
    rows: int
    sequence: int
    parts: tuple[tuple[str, int], ...] = ()  # further files that it needs: name, bytes of it that count


class Index(ABC):
    """See the module's text for the thread rule."""

    kind: ClassVar[str]
    # There is a structure beside the rows, which maintenance moves rows into and seals. Without one a search scans all.
    has_structure: ClassVar[bool] = True
    # Built from all rows at once it is better, and done sooner, than grown row by row: maintenance waits for the end of
    # a bulk load.
    prefers_bulk_build: ClassVar[bool] = False

    @property
    @abstractmethod
    def indexed_rows(self) -> int:
        """Rows below this number are in the live structure."""

    @property
    @abstractmethod
    def version(self) -> object:
        """An object that is another one whenever prepared searches (`searching`) must be made again, as with each
        change of `indexed_rows`.
        """

    @property
    def scan_share(self) -> int:
        """Scanning all rows takes no longer than scanning one in this many of them, scattered over all."""
        return 1

    @property
    def code_bytes(self) -> int:
        """Bytes of a row's code, where a search among some rows may be a scan of their codes; else 0."""
        return 0

    @property
    def step_rows(self) -> int:
        """Rows of the tail from which on a call of `add` is worth its cost."""
        return limits.index_step_rows

    @property
    def is_spoiled(self) -> bool:
        """Whether the structure was built by what turned out not to fit the data, so that it is worth building anew."""
        return False

    def take_over(self, other: Index) -> None:
        """Maintenance, before the first row is added: start from what `other`, over the same rows, learned of them."""
        return

    @abstractmethod
    def publish_rows(self, row_count: int) -> None:
        """Publisher: derive what a scan of the tail needs for rows below `row_count`, before they become visible."""

    @abstractmethod
    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        """Maintenance: move the tail rows [indexed_rows, stop) into the structure. progress : (rows done, rows), where
        one call takes long.
        """

    @abstractmethod
    def next_stop(self, row_count: int) -> int:
        """The `stop` of the next call of `add`, chosen so that the call is short where the kind allows it: at most
        row_count, and above `indexed_rows` where there is a tail. It depends on row numbers alone.
        """

    @abstractmethod
    def remove(self, sequence: int, threads: int = 1) -> int:
        """Maintenance: unlink rows deleted at or before `sequence`, which no snapshot in use may still see. Returns how
        many.
        """

    @abstractmethod
    def connect_unreachable(self, threads: int = 1) -> int:
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
        Raises Corruption when a row that is scored does not match its checksum; IndexCorruption; OSError.
        """

    def searching(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> Callable[[NDArray[np.float32]], Neighbors]:
        """A prepared `search` that takes the queries (float32[nq, dim], C-contiguous), for callers that search with
        the same arguments again. It is to be made again once `version` is another object.
        """
        return partial(self.search, limit=limit, visibility=visibility, params=params, allow=allow)

    def searching_one(
        self, limit: int, visibility: Visibility, params: SearchParams, norms: tuple[float, float],
        ids: NDArray[np.int64] | None,
    ) -> OneQuerySearch | None:  # fmt: skip
        """A prepared search among all rows for one query, without what the general one makes for each call. None where
        this kind of index has none.

        norms : bounds of a query's squared norm.   ids : int64 by row, answered in the place of rows; None: rows are.
        It is to be made again once `version` is another object.
        """
        return None

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
    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> Index:
        """A new index over `rows`, made without a rebuild. mapping : int64[old rows], new row of each, ascending, -1
        where a row is gone.
        """

    @property
    def tuning_cost_share(self) -> float:
        """Expected time of measuring its recall curve, as a share of the time of indexing all rows; for progress."""
        return 0.02

    def file_names(self) -> tuple[str, ...]:
        """Files in its collection's folder that it uses now, sealed or not."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Stop the threads. Searches that run are not interrupted."""


class HasCompanionGraph(ABC):
    """What an index adds that can grow a graph beside its own structure, which searches with an `ef` go through."""

    @abstractmethod
    def has_graph(self) -> bool:
        """Whether searches go through it: it is there and lacks few rows."""

    @abstractmethod
    def ask_for_graph(self) -> bool:
        """Have it grown: a search would be answered sooner by it. Returns whether nobody asked before."""

    @abstractmethod
    def companion_is_due(self, *, all_rows: bool = False) -> bool:
        """Whether `grow_companion` has something to do: a step that is worth it, or with `all_rows` any."""

    @abstractmethod
    def grow_companion(self, threads: int = 1) -> None:
        """Maintenance: one step of the graph that searches have asked for."""

    @abstractmethod
    def needs_reseal(self) -> bool:
        """Whether the sealed file lacks many rows of the graph, although it has all rows of the index."""

    @property
    @abstractmethod
    def seal_suffix(self) -> str:
        """End of the sealed file's name. Two sealed files of as many rows of the index differ in it if they differ in
        rows of the graph.
        """


# (queries float32[nq, dim], rows int64[any] of all queries, one query after another, counts int64[nq] of each) -> the
# nearest rows of each query among its own. Rows that the snapshot does not have or see, or that are not allowed, are
# left out, and a row that comes twice counts once.
ScoreRows = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], Neighbors]


class SearchesInRounds(ABC):
    """What an index adds whose search may be made in two rounds: rows are named first, and those that the caller
    chooses are scored. A caller who asks several indexes so reads the vectors of the rows that are near among all of
    them, and not as many in each.
    """

    @abstractmethod
    def naming(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None, indexes: int
    ) -> Callable[[NDArray[np.float32]], Candidates] | None:
        """As `Index.searching`, up to where vectors would be read: min(limit, matching) candidates of each query, or
        more. None where an exact scan must answer. indexes : that are asked and have about as many rows.
        """

    @abstractmethod
    def scoring(self, limit: int, visibility: Visibility, allow: RowSet | None, threads: int) -> ScoreRows | None:
        """None where there is nothing to read rows by: an exact scan must answer. threads : that share a batch."""


def corrupt_row_error(row: int, arrays: RowArrays) -> Corruption:
    """The error for a row whose bytes do not match its checksum."""
    from vecdb.kernels.primitives import checksums

    actual = int(checksums.crc_rows(np.array(arrays.vectors[row : row + 1]))[0])
    return Corruption(
        f"row file, row {row}: checksum {actual:#010x}, expected {int(arrays.crcs[row]):#010x}; "
        "the vector on disk is damaged, restore the database from a backup"
    )
