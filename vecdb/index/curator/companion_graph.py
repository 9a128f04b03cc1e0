"""The companion graph: an HNSW graph beside a clustering tree, for searches that see much of a large collection.

    a search asks, because a graph would be faster -> the graph grows, a step at a time
                                                   -> it is searched as soon as it has nearly all rows
                                                   -> it is sealed in a file beside the tree's file

One-bit codes are read at two nanoseconds a row: at 40,000 rows that is as fast as a graph, at 160,000 rows it takes
three times as long. A graph takes as much memory as the tree's codes, so it is built only after a search has asked.

Thread rule (the roles of contract.py): `ask` and `search` are called by searches, `publish_rows` by the publisher,
everything else by maintenance.
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

_STEP_SHARE = 64  # new rows are worth a step when they are 1/64 of the graph's
_LAG_STEPS = 2  # the graph is searched while it lacks fewer steps: it scans the rows that it lacks
_SEAL_SHARE = 8  # it is sealed again when it has 1/8 more rows than its file


class CompanionGraph:
    """graph : None until a search has asked.   sealed_rows : rows of the graph that its file has."""

    def __init__(self, metric: str, rows: RowSource, graph: HnswIndex | None = None, *, sealed_rows: int = 0) -> None:
        self.graph = graph
        self._metric = metric
        self._rows = rows
        self._asked = False
        self._sealed_rows = sealed_rows

    def ask(self) -> bool:
        """Ask for a graph. Returns whether this is the first time."""
        first = self.graph is None and not self._asked
        self._asked = True
        return first

    def is_ready(self, row_count: int) -> bool:
        graph = self.graph
        return graph is not None and row_count - graph.indexed_rows < _LAG_STEPS * _step_rows(graph)

    def is_due(self, row_count: int, *, all_rows: bool = False) -> bool:
        """Whether it lacks enough rows for a step, or with `all_rows` any row, or is to be built anew."""
        if self.graph is None:
            return self._asked and row_count > 0
        if self.graph.is_spoiled:
            return True
        return row_count - self.graph.indexed_rows >= (1 if all_rows else _step_rows(self.graph))

    def grown(self, row_count: int, removed: int, threads: int) -> HnswIndex:
        """The graph after one step, for `take`. removed : rows deleted up to this sequence are left out."""
        graph, old = self.graph, self.graph
        if graph is None or graph.is_spoiled:
            graph = HnswIndex(schema.Hnsw(), self._metric, self._rows)
            graph.remove(removed)
        graph.publish_rows(row_count)
        if old is not None and graph is not old:  # built anew as a whole, while the spoiled one is searched
            graph.take_over(old)
            while graph.indexed_rows < row_count:
                graph.add(graph.next_stop(row_count), threads)
            return graph
        graph.add(graph.next_stop(row_count), threads)
        return graph

    def take(self, graph: HnswIndex, row_count: int) -> None:
        """Let searches use `graph`, with codes of all rows that they may see. The caller keeps rows from being
        published meanwhile.
        """
        graph.publish_rows(row_count)
        old, self.graph = self.graph, graph
        if old is not None and old is not graph:
            old.close()

    def search(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> Callable[[NDArray[np.float32]], Neighbors]:
        assert self.graph is not None
        return partial(self.graph.search, limit=limit, visibility=visibility, params=params, allow=allow)

    def publish_rows(self, row_count: int) -> None:
        if self.graph is not None:
            self.graph.publish_rows(row_count)

    def remove(self, sequence: int, threads: int) -> int:
        return 0 if self.graph is None else self.graph.remove(sequence, threads)

    def connect_unreachable(self, threads: int) -> int:
        return 0 if self.graph is None else self.graph.connect_unreachable(threads)

    def needs_reseal(self, row_count: int) -> bool:
        """Whether it has all rows but those of one step, and its file lacks many of them."""
        if self.graph is None or self.is_due(row_count):
            return False
        fresh = self.graph.indexed_rows - self._sealed_rows
        return fresh >= max(limits.index_step_rows, self._sealed_rows // _SEAL_SHARE)

    def seal(self, beside: Path) -> tuple[Path, SealedFile] | None:
        """Write its file. Returns the path and what is in it; None without a graph. beside : the tree's file."""
        if self.graph is None or self.graph.indexed_rows == 0:
            return None
        path = _path(beside)
        sealed = self.graph.seal(path)
        self._sealed_rows = sealed.rows
        return path, sealed

    @classmethod
    def open(cls, beside: Path, metric: str, rows: RowSource, *, mapped: bool) -> CompanionGraph:
        """Raises Corruption when the file is damaged, FileNotFoundError when it is missing."""
        graph = HnswIndex.open(_path(beside), schema.Hnsw(), metric, rows, mapped=mapped)
        return cls(metric, rows, graph, sealed_rows=graph.indexed_rows)

    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> CompanionGraph:
        return CompanionGraph(self._metric, rows, None if self.graph is None else self.graph.renumbered(mapping, rows))

    def check(self) -> list[str]:
        return [] if self.graph is None else [f"graph beside the tree: {fault}" for fault in self.graph.check()]

    def stats(self) -> dict[str, Any] | None:
        return None if self.graph is None else self.graph.stats()

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()


def _step_rows(graph: HnswIndex) -> int:
    return max(limits.index_step_rows, graph.indexed_rows // _STEP_SHARE)


def _path(beside: Path) -> Path:
    return beside.with_name("graph." + beside.name.partition(".")[2])
