"""Which heads are nearest to a code: the lists or leaf that a row belongs to, and the neighbours of a head.

A code is looked up among the heads as a query is: all groups, then the heads of the nearest ones until enough of them
have been compared. No state; rows are cut by number, so that the answers do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.build import list_assignment
from vecdb.kernels.search.list_probe import HeadScratch

_ROWS_PER_SLICE = 4_096  # rows assigned in one kernel call
_REACH = 2_048  # heads compared per row
_CLOSURE_HEADS = 64  # near heads looked at under replicas (SPANN)


def _scratch(heads: Heads, candidates: int) -> ArrayTable:
    """Buffers for comparing one code after the other with heads."""
    width = heads.codes.shape[1]
    return ArrayTable(HeadScratch(
        query8=np.zeros(width, np.int8), query16=np.zeros(width, np.int16),
        group_keys=np.zeros(len(heads.group_ends), np.int64),
        keys=np.zeros(max(_REACH, 8 * candidates) + heads.largest_group + 64, np.int64),
    ))  # fmt: skip


def assign_to_heads(
    heads: Heads, codes: NDArray[np.uint8], replicas: int, threads: int, workers: ThreadPool
) -> NDArray[np.int32]:
    """The heads whose lists take rows given as codes: int32[n, replicas], nearest first, -1 where there are fewer."""
    labels = np.full((len(codes), replicas), -1, np.int32)
    candidates = 1 if replicas == 1 else _CLOSURE_HEADS
    table = heads.table()

    def one(start: int) -> None:
        part = slice(start, start + _ROWS_PER_SLICE)
        scratch = _scratch(heads, candidates)
        list_assignment.assign_rows(
            codes[part], table.table, scratch.table, candidates, _REACH, labels[part], heads.blocks
        )

    workers.map(one, range(0, len(codes), _ROWS_PER_SLICE), threads)
    return labels


def near_heads(heads: Heads, codes: NDArray[np.uint8], wanted: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Near heads of given codes, nearest first: (heads int32[n, wanted], -1 where there are fewer, squared distances in
    the space of codes).
    """
    near = np.full((len(codes), wanted), -1, np.int32)
    distances = np.zeros((len(codes), wanted), np.int32)
    table, scratch = heads.table(), _scratch(heads, wanted)
    list_assignment.near_heads(codes, table.table, scratch.table, _REACH, near, distances, heads.blocks)
    return near, distances


def comparisons_per_row(heads: int) -> int:
    """About how many comparisons it takes to find a row's nearest among so many heads."""
    return int(min(heads, _REACH) + heads**0.5)
