"""Threads over the building and repairing kernels. What a slice writes never depends on another slice."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.hnsw.graph import Graph
from vecdb.index.hnsw.scratch import ScratchBuffers, ScratchPool
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.build import insertion, repair
from vecdb.kernels.primitives.visibility import visible
from vecdb.storage.disk.row_file import runs

_SLICES_PER_THREAD = 8
_CANDIDATES = 512  # looked at when a neighbourhood is repaired
_CONNECT_WIDTH = 64  # beam width, at most, of the search for a row that an unreachable one is linked from


def _slices(first: int, stop: int, threads: int) -> list[tuple[int, int]]:
    """[first, stop) in pieces, more than threads, so that a slow piece does not hold up the rest."""
    count = 1 if threads <= 1 else min(stop - first, threads * _SLICES_PER_THREAD)
    edges = np.linspace(first, stop, max(1, count) + 1).astype(np.int64).tolist()
    return list(itertools.pairwise(edges))


class GraphBuilder:
    """Changes the links of one graph, on so many threads. Made for a batch: it sees the graph's arrays and deletions
    as they are when it is made.

    deleted : uint64[capacity], as in RowArrays.
    """

    def __init__(
        self,
        graph: Graph,
        deleted: NDArray[np.uint64],
        config: schema.Hnsw,
        threads: int,
        workers: ThreadPool,
        scratches: ScratchPool,
    ) -> None:
        self._graph = graph
        self._deleted = deleted
        self._config = config
        self._threads = threads
        self._workers = workers
        self._scratches = scratches
        places = graph.places.with_codes(graph.quantiser.code_format)
        self._places = places
        self._arrays = ArrayTable(
            insertion.BuiltGraph(graph.arrays(), graph.levels, deleted, places.kind, places.second)
        )
        # Neighbours chosen for a new row on layer 0: more than m, since rows of one batch do not see one another.
        self._chosen = 3 * places.near // 4
        self._chosen_second = 3 * places.second // 4

    def insert(self, first: int, stop: int, left_out: NDArray[np.bool_], removed: int, entry: int, level: int) -> None:
        """Insert rows [first, stop) into the graph that ends at `first`.

        left_out : bool[stop - first], rows that stay without links.   removed : deletions up to this sequence are
        unlinked already; where there are later ones searches must see past them.   entry, level : of the graph.
        """
        graph, config = self._graph, self._config
        width = max(config.ef_construction, config.m)
        deleted = self._deleted[:first]
        pending = bool(((deleted != 0) & visible(deleted, removed)).any())

        def own_links(begin: int, end: int, scratch: ScratchBuffers) -> None:
            for start, last in zip(*runs(~left_out[begin - first : end - first]), strict=True):
                insertion.insert_points(
                    begin + start, begin + last, first, stop, width, self._chosen, self._chosen_second, config.m,
                    entry, level, pending, self._arrays.table, scratch.table.table, scratch.blocks,
                )  # fmt: skip

        self._over_slices(own_links, first, stop, width)
        for row in (np.flatnonzero(left_out) + first).tolist():
            graph.links[row] = -1
            for layer in range(int(graph.levels[row])):
                graph.upper[graph.slot[row] + layer] = -1
        top = min(level, int(graph.levels[first:stop].max(initial=0)))
        # Upper layers first: a search that descends early lands on rows that have links below.
        for layer in range(top, -1, -1):
            self._add_reverse_links(first, stop, layer)

    def _add_reverse_links(self, first: int, stop: int, layer: int) -> None:
        edges = np.empty((stop - first) * (self._chosen + self._chosen_second), np.int64)
        edges = edges[: insertion.edges_of(first, stop, layer, self._arrays.table, edges)]
        if len(edges) == 0:
            return
        edges.sort()
        targets = edges >> 32
        starts = np.concatenate(([0], np.flatnonzero(targets[1:] != targets[:-1]) + 1, [len(edges)]))

        def link(begin: int, end: int, scratch: ScratchBuffers) -> None:
            insertion.add_reverse_links(
                edges, starts, begin, end, self._links_max(layer), layer, self._arrays.table, scratch.table.table,
                scratch.blocks,
            )  # fmt: skip

        self._over_slices(link, 0, len(starts) - 1)

    def repair(self, indexed: int, level: int, dead: NDArray[np.bool_]) -> None:
        """Give every row that links to a dead one a new neighbourhood, on all layers. dead : bool[indexed]."""
        bits = np.packbits(dead, bitorder="little")
        for layer in range(level + 1):

            def mend(begin: int, end: int, scratch: ScratchBuffers, layer: int = layer) -> None:
                most = self._links_max(layer)
                repair.repair_neighbourhoods(
                    begin, end, layer, bits, most, max(_CANDIDATES, 4 * most), self._arrays.table,
                    scratch.table.table, scratch.blocks,
                )  # fmt: skip

            self._over_slices(mend, 0, indexed)

    def connect_unreachable(self, indexed: int, dead: NDArray[np.bool_], entry: int, level: int) -> int:
        """Reach every row of [0, indexed) that is not dead. Returns how many were out of reach."""
        width = self._config.ef_construction
        scratch = self._scratches.take(self._graph, width, 0)
        lost = repair.connect_unreachable(
            indexed, np.packbits(dead, bitorder="little"), entry, level, min(_CONNECT_WIDTH, width),
            self._places.total,
            np.full(indexed, -1, np.int32), np.empty(indexed, np.int32), self._arrays.table, scratch.table.table,
            scratch.blocks,
        )  # fmt: skip
        self._scratches.give(scratch)
        return int(lost)

    def _links_max(self, layer: int) -> int:
        """Links of a row, without second ones."""
        return self._places.near if layer == 0 else self._config.m

    def _over_slices(
        self, work: Callable[[int, int, ScratchBuffers], None], first: int, stop: int, width: int = 0
    ) -> None:
        """work(begin, end, scratch) for pieces of [first, stop). width : beam width that the scratch has room for."""

        def run(piece: tuple[int, int]) -> None:
            scratch = self._scratches.take(self._graph, width, 0)
            work(*piece, scratch)
            self._scratches.give(scratch)

        self._workers.map(run, _slices(first, stop, self._threads), self._threads)
