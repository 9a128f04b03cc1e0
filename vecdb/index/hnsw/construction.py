"""Threads over the building and repairing kernels. What a slice writes never depends on another slice."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import EVERYTHING
from vecdb.index.hnsw.graph import Graph
from vecdb.index.hnsw.scratch import ScratchPool
from vecdb.kernels.build import insertion, repair
from vecdb.kernels.primitives.visibility import visible
from vecdb.storage.disk.row_file import RowArrays

_SLICES_PER_THREAD = 8
_REPAIR_POOL = 512  # candidates looked at when a neighbourhood is repaired


def _slices(first: int, stop: int, threads: int) -> list[tuple[int, int]]:
    """[first, stop) in pieces, more than threads, so that a slow piece does not hold up the rest."""
    count = 1 if threads <= 1 else min(stop - first, threads * _SLICES_PER_THREAD)
    edges = np.linspace(first, stop, max(1, count) + 1).astype(np.int64).tolist()
    return list(itertools.pairwise(edges))


def _chosen(config: schema.Hnsw) -> int:
    """Neighbours chosen for a new row on layer 0: more than m, since rows of one batch do not see one another."""
    return config.m + config.m // 2


def insert_batch(
    graph: Graph,
    arrays: RowArrays,
    config: schema.Hnsw,
    first: int,
    stop: int,
    gone: NDArray[np.bool_],
    removed: int,
    entry: int,
    level: int,
    threads: int,
    workers: ThreadPool,
    scratches: ScratchPool,
) -> None:
    """Insert rows [first, stop) into the graph that ends at `first`. gone : rows of the batch that stay without links.
    removed : deletions up to this sequence are unlinked already; where there are later ones the walk must see past
    them.
    """
    width = max(config.ef_construction, config.m)
    blocks = (0,) * scratches.blocks
    deleted = arrays.deleted[:first]
    pending = bool(((deleted != 0) & visible(deleted, removed)).any())

    def own_links(part: tuple[int, int]) -> None:
        scratch = scratches.take(graph, width, 0)
        insertion.insert_points(
            part[0], part[1], graph.levels, width, _chosen(config), config.m, entry, level, pending,
            graph.codes, graph.bias, graph.links, graph.upper, graph.slot, arrays.deleted, EVERYTHING,
            scratch.pool, scratch.kept, scratch.visited, scratch.trail, scratch.query8, scratch.query16,
            blocks,
        )  # fmt: skip
        scratches.give(scratch)

    workers.map(own_links, _slices(first, stop, threads), threads)
    if gone.any():
        for row in (np.flatnonzero(gone) + first).tolist():
            graph.links[row] = -1
            for layer in range(int(graph.levels[row])):
                graph.upper[graph.slot[row] + layer] = -1
    top = min(level, int(graph.levels[first:stop].max(initial=0)))
    for layer in range(
        top, -1, -1
    ):  # upper layers first: a search that descends early lands on rows that have links below
        _add_reverse_links(graph, arrays, config, first, stop, layer, threads, workers, scratches)


def _add_reverse_links(
    graph: Graph,
    arrays: RowArrays,
    config: schema.Hnsw,
    first: int,
    stop: int,
    layer: int,
    threads: int,
    workers: ThreadPool,
    scratches: ScratchPool,
) -> None:
    table = graph.links if layer == 0 else graph.upper
    most = 2 * config.m if layer == 0 else config.m
    blocks = (0,) * scratches.blocks
    edges = np.empty((stop - first) * _chosen(config), np.int64)
    edges = edges[: insertion.edges_of(first, stop, graph.levels, layer, table, graph.slot, edges)]
    if len(edges) == 0:
        return
    edges.sort()
    targets = edges >> 32
    starts = np.concatenate(([0], np.flatnonzero(targets[1:] != targets[:-1]) + 1, [len(edges)]))

    def link(part: tuple[int, int]) -> None:
        scratch = scratches.take(graph, 0, 0)
        insertion.link_back(
            edges, starts, part[0], part[1], most, layer, graph.codes, graph.bias, table, graph.slot, arrays.deleted,
            scratch.pool, scratch.kept, scratch.query8, scratch.query16, blocks,
        )  # fmt: skip
        scratches.give(scratch)

    workers.map(link, _slices(0, len(starts) - 1, threads), threads)


def repair_rows(
    graph: Graph,
    config: schema.Hnsw,
    indexed: int,
    level: int,
    dead: NDArray[np.bool_],
    threads: int,
    workers: ThreadPool,
    scratches: ScratchPool,
) -> None:
    """Give every row that links to a dead one a new neighbourhood, on all layers."""
    bits = np.packbits(dead, bitorder="little")
    blocks = (0,) * scratches.blocks
    for layer in range(level + 1):
        table = graph.links if layer == 0 else graph.upper
        most = 2 * config.m if layer == 0 else config.m

        def mend(part: tuple[int, int], layer: int = layer, table: NDArray[np.int32] = table, most: int = most) -> None:
            scratch = scratches.take(graph, 0, 0)
            build_pool = scratch.pool[: max(_REPAIR_POOL, 4 * most)]
            repair.repair(
                part[0], part[1], graph.levels, layer, bits, most, graph.codes, graph.bias, table, graph.slot,
                build_pool, scratch.kept, scratch.visited, scratch.trail, scratch.query8, scratch.query16, blocks,
            )  # fmt: skip
            scratches.give(scratch)

        workers.map(mend, _slices(0, indexed, threads), threads)


def settle_rows(
    graph: Graph,
    arrays: RowArrays,
    config: schema.Hnsw,
    indexed: int,
    dead: NDArray[np.bool_],
    entry: int,
    level: int,
    scratches: ScratchPool,
) -> int:
    """Reach every row of [0, indexed) that is not dead. Returns how many were out of reach."""
    scratch = scratches.take(graph, config.ef_construction, 0)
    lost = repair.settle(
        indexed, np.packbits(dead, bitorder="little"), entry, level, min(64, config.ef_construction), 2 * config.m,
        graph.codes, graph.bias, graph.links, graph.upper, graph.slot, arrays.deleted, EVERYTHING,
        np.full(indexed, -1, np.int32), np.empty(indexed, np.int32), scratch.pool, scratch.visited,
        scratch.trail, scratch.query8, scratch.query16, (0,) * scratches.blocks,
    )  # fmt: skip
    scratches.give(scratch)
    return int(lost)
