"""A graph beside a clustering tree, for those who see much of a large collection.

    asked for by a search that it would answer sooner -> grown, a step at a time -> searched once it has nearly all rows
                                                                                 -> sealed in a file beside the tree's

Codes of one bit are read at two nanoseconds a row, which at 40,000 rows is as fast as a graph and at 160,000 takes
three times as long. A graph costs as much memory again as the tree's codes, so nobody has one who has not asked.

Roles are those of an index (contract.py): `ask` and `search` from searches, `extend` from the publisher, all else from
maintenance.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index.contract import Neighbors, RowSource, SealedFile
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.index.row_set import RowSet
from vecdb.schema import SearchParams, Visibility

_LAG_SHARE = 64  # of its rows that are worth a step
_LAG_STEPS = 2  # that it may lack and is searched all the same: it scans what it lacks
_SEAL_SHARE = 8


class CompanionGraph:
    """graph : None until somebody asks."""

    def __init__(self, metric: str, rows: RowSource, graph: HnswIndex | None = None) -> None:
        self.graph = graph
        self._metric = metric
        self._rows = rows
        self._asked = False
        self._sealed_rows = 0

    def ask(self) -> bool:
        """Whether this is the first who asks."""
        first = self.graph is None and not self._asked
        self._asked = True
        return first

    def is_ready(self, row_count: int) -> bool:
        graph = self.graph
        return graph is not None and row_count - graph.indexed_rows < _LAG_STEPS * _step_rows(graph)

    def is_due(self, row_count: int, *, all_rows: bool = False) -> bool:
        """Whether there is a step to do, or with `all_rows` a row that it lacks."""
        if self.graph is None:
            return self._asked and row_count > 0
        return row_count - self.graph.indexed_rows >= (1 if all_rows else _step_rows(self.graph))

    def grown(self, row_count: int, removed: int, threads: int) -> HnswIndex:
        """The graph after one step, for `take`. removed : deletions up to this sequence stay out."""
        graph = self.graph
        if graph is None:
            graph = HnswIndex(schema.Hnsw(), self._metric, self._rows)
            graph.remove(removed)
        graph.extend(row_count)
        graph.add(graph.next_stop(row_count), threads)
        return graph

    def take(self, graph: HnswIndex, row_count: int) -> None:
        """Put it in place, with codes of all rows that searches may see; nobody publishes rows meanwhile."""
        graph.extend(row_count)
        self.graph = graph

    def search(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> Callable[[NDArray[np.float32]], Neighbors]:
        assert self.graph is not None
        return partial(self.graph.search, limit=limit, visibility=visibility, params=params, allow=allow)

    def extend(self, row_count: int) -> None:
        if self.graph is not None:
            self.graph.extend(row_count)

    def remove(self, sequence: int, threads: int) -> int:
        return 0 if self.graph is None else self.graph.remove(sequence, threads)

    def settle(self, threads: int) -> int:
        return 0 if self.graph is None else self.graph.settle(threads)

    def lacks_seal(self, row_count: int) -> bool:
        """Whether it is grown, and its file has much less."""
        if self.graph is None or self.is_due(row_count):
            return False
        fresh = self.graph.indexed_rows - self._sealed_rows
        return fresh >= max(limits.index_step_rows, self._sealed_rows // _SEAL_SHARE)

    def seal(self, beside: Path) -> tuple[Path, SealedFile] | None:
        """Its file, and what is in it. beside : the tree's."""
        if self.graph is None or self.graph.indexed_rows == 0:
            return None
        path = _path(beside)
        sealed = self.graph.seal(path)
        self._sealed_rows = sealed.rows
        return path, sealed

    @classmethod
    def open(cls, beside: Path, metric: str, rows: RowSource, *, mapped: bool) -> CompanionGraph:
        """Raises Corruption when the file is damaged; FileNotFoundError."""
        graph = HnswIndex.open(_path(beside), schema.Hnsw(), metric, rows, mapped=mapped)
        made = cls(metric, rows, graph)
        made._sealed_rows = graph.indexed_rows
        return made

    def compact(self, mapping: NDArray[np.int64], rows: RowSource) -> CompanionGraph:
        return CompanionGraph(self._metric, rows, None if self.graph is None else self.graph.compact(mapping, rows))

    def check(self) -> list[str]:
        return [] if self.graph is None else [f"graph beside the tree: {said}" for said in self.graph.check()]

    def stats(self) -> dict[str, Any] | None:
        return None if self.graph is None else self.graph.stats()

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()


def _step_rows(graph: HnswIndex) -> int:
    return max(limits.index_step_rows, graph.indexed_rows // _LAG_SHARE)


def _path(beside: Path) -> Path:
    return beside.with_name("graph." + beside.name.partition(".")[2])
