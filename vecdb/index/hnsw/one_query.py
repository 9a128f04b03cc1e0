"""Searches of a graph for one query at a time, prepared so that little is left to do for each.

    search_table   what is asked of a graph, as the kernel takes it
    searching      a function of the query alone: float32[dim] -> (answers, distances), or None

Of a search of twenty microseconds Python's part counts: whatever does not depend on the query is done once, the kernel
checks the query's norm and turns rows into ids, and nothing is made for a call but the two arrays that it returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.thread_pool import TURNS
from vecdb.index.contract import OneQuerySearch
from vecdb.index.hnsw.graph import GraphView
from vecdb.index.hnsw.scratch import SCRATCHES_MAX, ScratchPool
from vecdb.index.row_set import EVERY_ROW_BITMAP
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.compile import entry_of
from vecdb.kernels.search.graph_search import ALL_FULL, GraphSearch, search_graph
from vecdb.schema import Visibility

_I64, _F32 = np.dtype(np.int64), np.dtype(np.float32)
_NO_IDS: NDArray[np.int64] = np.empty(0, np.int64)


def search_table(
    width: int,
    rerank: int,
    visibility: Visibility,
    norms: tuple[float, float] | None = None,
    ids: NDArray[np.int64] | None = None,
) -> ArrayTable:
    """norms : bounds of the squared norms of queries, None where they have been checked.   ids : by row, answered in
    the place of rows.
    """
    norm_min, norm_max = norms or (0.0, 0.0)
    return ArrayTable(
        GraphSearch(
            width, rerank, visibility.row_count, visibility.sequence, int(norms is None), norm_min, norm_max,
            EVERY_ROW_BITMAP, _NO_IDS if ids is None else ids, _NO_IDS if norms is None else TURNS,
        )
    )  # fmt: skip


def searching(
    view: GraphView, search: ArrayTable, limit: int, width: int, rerank: int, scratches: ScratchPool
) -> OneQuerySearch:
    """See `Index.searching_one`. search : of `search_table`; what is returned keeps it, and the view, alive."""
    asked, graph, vectors, free = search.table, view.table.table, view.vectors, scratches.free
    first, empty = scratches.take(view.graph, width, rerank), np.empty
    blocks = first.blocks
    call = entry_of(
        search_graph, empty(vectors.shape[1], _F32), empty(limit, _I64), empty(limit, _F32), first.count, first.work,
        asked, graph, vectors, first.table.table, blocks,
    )  # fmt: skip
    scratches.give(first)

    def find(query: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        try:
            scratch = free.pop()
        except IndexError:
            scratch = scratches.take(view.graph, width, rerank)
        if scratch.user is not search:
            if not scratch.fits(view.graph, width, rerank):
                scratch = scratches.take(view.graph, width, rerank)
            scratch.user = search
        answers, distances = empty(limit, _I64), empty(limit, _F32)
        state = call(
            query, answers, distances, scratch.count, scratch.work, asked, graph, vectors, scratch.table.table, blocks
        )
        if len(free) < SCRATCHES_MAX:
            free.append(scratch)
        return (answers, distances) if state == ALL_FULL else None

    return find
